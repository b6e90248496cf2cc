#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "cli/command.h"
#include "cli/values.h"

namespace ublkd::cli {

Outcome<OutputOptions> output_options(const Invocation& invocation) {
    OutputOptions output;
    const auto all = [&](const char* name) {
        const auto found = invocation.options.find(name);
        return found == invocation.options.end() ? std::vector<std::string>() : found->second;
    };
    if (const auto format = all("output"); !format.empty()) {
        const auto parsed = parse_format(format.back());
        if (!parsed) return usage(parsed.error());
        output.format = *parsed;
    }
    if (invocation.options.contains("quiet")) output.format = Format::kId;
    output.filters = all("filter");
    if (const auto sort = all("sort"); !sort.empty()) output.sort = sort.back();
    for (const std::string& list : all("columns")) {
        std::string name;
        for (const char c : list + ",") {
            if (c != ',')
                name += c;
            else if (!name.empty())
                output.columns.push_back(std::exchange(name, ""));
        }
    }
    if (invocation.command->prints.view != nullptr) {
        const auto known = check_columns(invocation.command->prints.view(), output);
        if (!known) return usage(known.error());
    }
    return output;
}

std::string Context::option(const std::string& name) const {
    const auto found = invocation_.options.find(name);
    return found == invocation_.options.end() || found->second.empty() ? std::string()
                                                                       : found->second.back();
}

std::vector<std::string> Context::all(const std::string& name) const {
    const auto found = invocation_.options.find(name);
    return found == invocation_.options.end() ? std::vector<std::string>() : found->second;
}

std::vector<std::string> Context::positionals(const std::string& name) const {
    const auto found = invocation_.positionals.find(name);
    return found == invocation_.positionals.end() ? std::vector<std::string>() : found->second;
}

std::string Context::positional(const std::string& name) const {
    const auto values = positionals(name);
    return values.empty() ? std::string() : values.front();
}

void Context::print(const std::string& text) const {
    if (!output_.silent) fmt::print("{}", text);
}
void Context::note(const std::string& text) const { fmt::print(stderr, "{}\n", text); }

Outcome<api::Json> Context::fetch_list(const std::string& path, const std::string& list_key,
                                       const std::vector<std::string>& names) {
    if (names.empty()) return client_.call("GET", path);
    api::Json found = api::Json::array();
    for (const std::string& name : names) {
        CLI_TRY_ASSIGN(auto one, client_.call("GET", path + "/" + percent_encoded(name)));
        found.push(std::move(one));
    }
    return api::Json::object().set(list_key, std::move(found));
}

Outcome<int> Context::print_list(const View& view, const api::Json& answer) const {
    const auto text = list_text(view, answer, output_);
    if (!text) return usage(text.error());
    print(*text);
    return 0;
}

Outcome<int> Context::print_item(const View& view, const api::Json& item) const {
    const auto text = item_text(view, item, output_);
    if (!text) return usage(text.error());
    print(*text);
    return 0;
}

Outcome<int> Context::print_answer(const api::Json& answer) const {
    if (output_.format == Format::kYaml)
        print(yaml_text(answer));
    else if (output_.format == Format::kJsonLines)
        print(answer.dump() + "\n");
    else
        print(answer.dump(true) + "\n");
    return 0;
}

Outcome<int> Context::print_plan(const api::Json& answer) const {
    if (!for_person()) return print_answer(answer);
    for (const api::Json& step : answer["Plan"].items()) print("would " + step.as_string() + "\n");
    return 0;
}

Outcome<int> Context::print_done(const api::Json& answer, const std::string& id,
                                 const std::string& what) const {
    if (!quiet() && !for_person()) return print_answer(answer);
    print(quiet() ? id + "\n" : fmt::format("{}  {}\n", id, what));
    return 0;
}

Outcome<void> Context::confirm(const std::string& question) const {
    if (has("yes")) return {};
    if (isatty(STDIN_FILENO) == 0 || isatty(STDERR_FILENO) == 0) {
        return usage(fmt::format("{} Say --yes: there is no terminal to ask on", question));
    }
    fmt::print(stderr, "{} [y/N] ", question);
    std::string answer;
    std::getline(std::cin, answer);
    if (lower(answer) == "y" || lower(answer) == "yes") return {};
    return std::unexpected(Failure{kExitFailed, "", "nothing was done"});
}

Outcome<std::chrono::milliseconds> Context::timeout(std::chrono::milliseconds fallback) const {
    if (!has("timeout")) return fallback;
    const auto parsed = parse_duration(option("timeout"));
    if (!parsed) return usage("--timeout: " + parsed.error());
    return *parsed;
}

}  // namespace ublkd::cli
