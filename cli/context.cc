#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "cli/command.h"
#include "cli/values.h"

namespace ublkd::cli {

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

void Context::print(const std::string& text) const { fmt::print("{}", text); }
void Context::note(const std::string& text) const { fmt::print(stderr, "{}\n", text); }

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
