#include "cli/arguments.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <list>
#include <memory>

#include "cli/help.h"

namespace ublkd::cli {
namespace {

/// "-o,--output" -> "output".
std::string key_of(const std::string& name) { return name.substr(name.rfind("--") + 2); }

/// CLI11 takes "[a,b]" for two values: one that begins so is marked before it is parsed.
constexpr char kMark = '\x01';
std::vector<std::string> marked(std::vector<std::string> words) {
    for (std::string& word : words) {
        const auto value = word.starts_with("--") ? word.find('=') + 1 : 0;
        if (value < word.size() && word[value] == '[') word.insert(value, 1, kMark);
    }
    return words;
}
std::vector<std::string> unmarked(std::vector<std::string> words) {
    for (std::string& word : words) {
        if (word.starts_with(kMark)) word.erase(0, 1);
    }
    return words;
}

constexpr int kMany = 1 << 20;

/// What CLI11 fills for one command.
struct Slots {
    CLI::App* app = nullptr;
    const Command* command = nullptr;
    std::list<std::pair<std::string, std::vector<std::string>>> options;
    std::list<std::pair<std::string, bool>> flags;
    std::list<std::pair<std::string, std::vector<std::string>>> positionals;
    bool help = false;
};

void add_option(Slots& slots, const Option& option) {
    if (option.value.empty()) {
        auto& flag = slots.flags.emplace_back(key_of(option.name), false);
        slots.app->add_flag(option.name, flag.second);
        return;
    }
    auto& values = slots.options.emplace_back(key_of(option.name), std::vector<std::string>());
    auto* made = slots.app->add_option(option.name, values.second);
    made->expected(1, option.many ? kMany : 1)->allow_extra_args(option.many);
    made->take_all()->type_name(option.value);
    if (!option.repeated && !option.many) made->take_last();
    if (option.required) made->required();
    if (!option.choices.empty()) made->check(CLI::IsMember(option.choices));
}

/// A tree of subcommands for the words of the commands' paths.
class Tree {
  public:
    Tree() {
        app_.set_help_flag();
        app_.require_subcommand(0, 1);
        app_.add_flag("-h,--help", top_help_);
        for (const Command& command : commands()) add(command);
    }
    CLI::App& app() { return app_; }
    bool top_help() const { return top_help_; }

    /// The command whose app was parsed last; nullptr where only a group was named.
    Slots* parsed() {
        for (Slots& slots : slots_) {
            if (slots.app->parsed() && slots.app->get_subcommands().empty()) return &slots;
        }
        return nullptr;
    }
    /// The path of words that were understood.
    std::string parsed_path() const {
        std::string path;
        const CLI::App* at = &app_;
        while (!at->get_subcommands().empty()) {
            at = at->get_subcommands().front();
            path += (path.empty() ? "" : " ") + at->get_name();
        }
        return path;
    }
    bool group_help() const {
        for (const auto& [app, flag] : group_help_) {
            if (flag) return true;
        }
        return false;
    }

  private:
    void add(const Command& command) {
        CLI::App* at = &app_;
        for (const std::string& word : words_of(command.path)) {
            const auto next =
                at->get_subcommands([&](const CLI::App* app) { return app->get_name() == word; });
            at = next.empty() ? at->add_subcommand(word) : next.front();
            at->set_help_flag();
            at->require_subcommand(0, 1);
        }
        Slots& slots = slots_.emplace_back();
        slots.app = at;
        slots.command = &command;
        for (const Option& option : command.options) add_option(slots, option);
        for (const Option& option : global_options_of(command)) {
            if (option.name == "-h,--help")
                at->add_flag(option.name, slots.help);
            else
                add_option(slots, option);
        }
        for (const Positional& positional : command.positionals) {
            auto& values =
                slots.positionals.emplace_back(positional.name, std::vector<std::string>());
            auto* made = at->add_option(positional.name, values.second);
            made->required(positional.required);
            made->expected(1, positional.many ? kMany : 1)->allow_extra_args(positional.many);
        }
        add_group_help(&app_, words_of(command.path));
    }
    /// "ebs-cli volume --help" too.
    void add_group_help(CLI::App* at, const std::vector<std::string>& words) {
        for (std::size_t i = 0; i + 1 < words.size(); ++i) {
            at = at->get_subcommand(words[i]);
            if (at->get_option_no_throw("--help") != nullptr) continue;
            auto& flag = group_help_.emplace_back(at, false);
            at->add_flag("-h,--help", flag.second);
        }
    }

    CLI::App app_{"ebs-cli"};
    bool top_help_ = false;
    std::list<Slots> slots_;
    std::list<std::pair<CLI::App*, bool>> group_help_;
};

Invocation invocation_of(const Slots& slots) {
    Invocation made;
    made.command = slots.command;
    for (const auto& [name, values] : slots.options) {
        if (!values.empty()) made.options[name] = unmarked(values);
    }
    for (const auto& [name, given] : slots.flags) {
        if (given) made.options[name] = {""};
    }
    for (const auto& [name, values] : slots.positionals) {
        if (!values.empty()) made.positionals[name] = unmarked(values);
    }
    return made;
}

/// What was given as "": a script's variable that is not set, most often.
std::string empty_value(const Invocation& given) {
    const auto is_empty = [](const std::string& value) { return value.empty(); };
    for (const auto& [name, values] : given.positionals) {
        if (std::ranges::any_of(values, is_empty)) return name;
    }
    std::vector<Option> options = global_options_of(*given.command);
    options.insert(options.end(), given.command->options.begin(), given.command->options.end());
    for (const Option& option : options) {
        const auto found = given.options.find(key_of(option.name));
        if (found != given.options.end() && !option.value.empty() &&
            std::ranges::any_of(found->second, is_empty))
            return "--" + key_of(option.name);
    }
    return "";
}

/// The option that was given although it cannot be honoured; nullptr where there is none.
const Option* refused_option(const Invocation& given) {
    const auto found = std::ranges::find_if(given.command->options, [&](const Option& option) {
        return !option.refused.empty() && given.options.contains(key_of(option.name));
    });
    return found == given.command->options.end() ? nullptr : &*found;
}

/// "--name=" with nothing behind it, of which CLI11 would make the next word the value; "" where
/// there is none.
std::string empty_assignment(const std::vector<std::string>& arguments) {
    for (const std::string& argument : arguments) {
        if (argument == "--") break;
        if (argument.starts_with("--") && argument.find('=') + 1 == argument.size())
            return argument.substr(0, argument.size() - 1);
    }
    return "";
}

bool wants_help(const std::vector<std::string>& arguments) {
    for (const std::string& argument : arguments) {
        if (argument == "--") return false;
        if (argument == "--help" || argument == "-h") return true;
    }
    return false;
}

/// `path`: the words that were understood; the next one was not, or there is none.
std::string no_command(const std::string& path, const std::vector<std::string>& arguments) {
    const std::string named = path.empty() ? "ebs-cli" : "ebs-cli " + path;
    const std::size_t known = words_of(path).size();
    if (arguments.size() > known && !arguments[known].starts_with('-')) {
        return fmt::format("there is no command '{} {}'; see {} --help", named, arguments[known],
                           named);
    }
    return fmt::format("a command is needed; see {} --help", named);
}

/// CLI11 tells `extras` in an order of its own.
std::string unexpected(const std::vector<std::string>& arguments, std::vector<std::string> extras) {
    std::string told;
    for (const std::string& argument : arguments) {
        const auto found = std::ranges::find(extras, argument);
        if (found == extras.end()) continue;
        extras.erase(found);
        told += " " + argument;
    }
    for (const std::string& extra : extras) told += " " + extra;
    return "not expected:" + told;
}

/// Global options may stand before the command too: they are moved behind it.
std::vector<std::string> command_first(std::vector<std::string> arguments) {
    std::vector<std::string> moved;
    std::size_t at = 0;
    while (at < arguments.size() && arguments[at].starts_with('-') && arguments[at] != "--") {
        const Option* found = nullptr;
        for (const Option& option : global_options()) {
            const auto comma = option.name.find(',');
            const std::string long_name =
                option.name.substr(comma == std::string::npos ? 0 : comma + 1);
            const bool is_short =
                comma != std::string::npos && arguments[at] == option.name.substr(0, comma);
            if (is_short || arguments[at] == long_name ||
                arguments[at].starts_with(long_name + "="))
                found = &option;
        }
        if (found == nullptr || found->name == "-h,--help") break;
        const bool value_follows =
            !found->value.empty() && arguments[at].find('=') == std::string::npos;
        moved.push_back(arguments[at++]);
        if (value_follows && at < arguments.size()) moved.push_back(arguments[at++]);
    }
    arguments.erase(arguments.begin(), arguments.begin() + static_cast<std::ptrdiff_t>(at));
    // Before the options that follow, so that of two the last one given counts.
    const auto options =
        std::ranges::find_if(arguments, [](const auto& word) { return word.starts_with('-'); });
    arguments.insert(options, moved.begin(), moved.end());
    return arguments;
}

}  // namespace

std::vector<std::string> words_of(const std::string& text) {
    std::vector<std::string> words;
    std::string word;
    for (const char c : text + " ") {
        if (c != ' ')
            word += c;
        else if (!word.empty())
            words.push_back(std::exchange(word, ""));
    }
    return words;
}

std::expected<Parsed, std::string> parse_arguments(const std::vector<std::string>& given) {
    if (const std::string name = empty_assignment(given); !name.empty())
        return std::unexpected(fmt::format("{} must not be empty; see ebs-cli --help", name));
    const std::vector<std::string> arguments = command_first(given);
    Tree tree;
    std::vector<std::string> reversed = marked({arguments.rbegin(), arguments.rend()});
    const auto named = [&] {
        return tree.parsed_path().empty() ? std::string("ebs-cli")
                                          : "ebs-cli " + tree.parsed_path();
    };
    try {
        tree.app().parse(reversed);
    } catch (const CLI::ParseError& error) {
        // --help counts although something that is needed is missing.
        const std::string path = tree.parsed_path();
        if (wants_help(arguments)) return Parsed{{}, help_text(path)};
        if (find_command(path) == nullptr) return std::unexpected(no_command(path, arguments));
        std::string why = dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr
                              ? unexpected(arguments, unmarked(tree.app().remaining(true)))
                              : error.what();
        std::erase(why, kMark);
        return std::unexpected(fmt::format("{}; see {} --help", why, named()));
    }
    if (arguments.empty()) return Parsed{{}, help_text("")};
    Slots* const slots = tree.parsed();
    if (tree.top_help() || tree.group_help() || (slots != nullptr && slots->help))
        return Parsed{{}, help_text(tree.parsed_path())};
    if (slots == nullptr)
        return std::unexpected(fmt::format("a command is needed; see {} --help", named()));
    Parsed parsed{invocation_of(*slots), ""};
    if (const std::string name = empty_value(parsed.invocation);
        !name.empty() && slots->command->listed != Listed::kNowhere)
        return std::unexpected(fmt::format("{} must not be empty; see {} --help", name, named()));
    if (const Option* option = refused_option(parsed.invocation); option != nullptr)
        return std::unexpected(fmt::format("{} cannot be taken: {}; see {} --help", option->name,
                                           option->refused, named()));
    return parsed;
}

}  // namespace ublkd::cli
