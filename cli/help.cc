#include "cli/help.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>

#include "cli/command.h"

namespace ublkd::cli {
namespace {

std::string positional_text(const Positional& positional) {
    std::string text = positional.name;
    if (positional.many) text += "...";
    return positional.required ? text : "[" + text + "]";
}

std::string synopsis(const Command& command) {
    std::string text = "ebs-cli " + command.path;
    for (const Positional& positional : command.positionals)
        text += " " + positional_text(positional);
    for (const Option& option : command.options) {
        if (!option.required) continue;
        text += fmt::format(" {} {}", option.name.substr(option.name.rfind("--")), option.value);
    }
    const bool more =
        std::ranges::any_of(command.options, [](const Option& option) { return !option.required; });
    return text + (more ? " [OPTIONS]" : "");
}

std::string option_left(const Option& option) {
    std::string name = option.name;
    if (const auto comma = name.find(','); comma != std::string::npos)
        name.insert(comma + 1, " ");
    else
        name = "    " + name;
    return option.value.empty() ? name : name + " " + option.value;
}

std::string option_right(const Option& option) {
    std::string text = option.help;
    if (option.repeated) text += "; may be given several times";
    if (option.many) text += "; several may follow";
    return option.refused.empty() ? text : "not taken: " + option.refused;
}

/// Two columns, the right one wrapped to 100 characters.
void add_columns(std::string& text, const std::string& left, const std::string& right,
                 std::size_t width = 26) {
    std::string line = "  " + left;
    std::size_t used = left.size();
    if (used + 2 > width) {
        text += line + "\n";
        line = "  ";
        used = 0;
    }
    line += std::string(width - used, ' ');
    std::string word;
    std::size_t column = line.size();
    for (const char c : right + " ") {
        if (c != ' ') {
            word += c;
            continue;
        }
        if (column + word.size() > 100) {
            line += "\n" + std::string(width + 2, ' ');
            column = width + 2;
        }
        line += word + " ";
        column += word.size() + 1;
        word.clear();
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
}

std::string command_help(const Command& command) {
    std::string text = fmt::format("usage: {}\n{}\n", synopsis(command), command.summary);
    if (!command.description.empty()) text += "\n" + command.description + "\n";
    if (!command.positionals.empty()) {
        text += "\narguments:\n";
        for (const Positional& positional : command.positionals)
            add_columns(text, positional_text(positional), positional.help);
    }
    if (!command.options.empty()) {
        text += "\noptions:\n";
        for (const Option& option : command.options)
            add_columns(text, option_left(option), option_right(option));
    }
    text += "\nglobal options:\n";
    for (const Option& option : global_options_of(command))
        add_columns(text, option_left(option), option_right(option));
    return text + "\nexample:\n  " + command.example + "\n";
}

std::string overview(const std::string& group) {
    std::string text =
        group.empty() ? "usage: ebs-cli COMMAND [ARGUMENTS]\nReplicated block volumes: talks to "
                        "the daemon ublkd.\n\ncommands:\n"
                      : fmt::format("usage: ebs-cli {} COMMAND [ARGUMENTS]\n\ncommands:\n", group);
    const Command* first = nullptr;
    for (const Command& command : commands()) {
        if (command.listed != Listed::kHelp ||
            (!group.empty() && !command.path.starts_with(group + " ")))
            continue;
        if (first == nullptr) first = &command;
        add_columns(text, command.path, command.summary);
    }
    if (group.empty()) {
        text += "\nglobal options:\n";
        for (const Option& option : global_options())
            add_columns(text, option_left(option), option_right(option));
        text +=
            "\nexit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 not allowed, 5 conflict or "
            "busy, 6 daemon unreachable,\n"
            "  7 --timeout passed (the work goes on), 8 degraded (status, doctor, why), 130 "
            "interrupted\n";
    }
    return text + "\nexample:\n  " +
           (group.empty() || first == nullptr
                ? "ebs-cli volume create --size 10G --name pg && ebs-cli attach pg"
                : first->example) +
           "\n";
}

std::string escaped(const std::string& text) {
    std::string made;
    bool line_start = true;
    for (const char c : text) {
        if (c == '\\')
            made += "\\e";
        else if (c == '-')
            made += "\\-";
        else if (line_start && (c == '.' || c == '\''))
            made += std::string("\\&") + c;
        else
            made += c;
        line_start = c == '\n';
    }
    return made;
}

void add_man_options(std::string& page, const std::vector<Option>& options) {
    for (const Option& option : options) {
        std::string name = option.name;
        if (const auto comma = name.find(','); comma != std::string::npos)
            name.insert(comma + 1, " ");
        page += fmt::format(".TP\n\\fB{}\\fR{}\n{}\n", escaped(name),
                            option.value.empty() ? "" : " \\fI" + escaped(option.value) + "\\fR",
                            escaped(option_right(option)));
    }
}

void add_man_commands(std::string& page, Listed listed) {
    for (const Command& command : commands()) {
        if (command.listed != listed) continue;
        page += fmt::format(".SS {}\n.B {}\n.PP\n{}.\n", escaped(command.path),
                            escaped(synopsis(command)), escaped(command.summary));
        if (!command.description.empty()) page += ".PP\n" + escaped(command.description) + "\n";
        for (const Positional& positional : command.positionals)
            page += fmt::format(".TP\n\\fI{}\\fR\n{}\n", escaped(positional_text(positional)),
                                escaped(positional.help));
        add_man_options(page, command.options);
        page +=
            fmt::format(".PP\nExample:\n.PP\n.nf\n.RS\n{}\n.RE\n.fi\n", escaped(command.example));
    }
}

std::string marker_of(Names names) {
    switch (names) {
        case Names::kNothing:
            return "";
        case Names::kVolume:
            return "<volume>";
        case Names::kInstance:
            return "<instance>";
        case Names::kHost:
            return "<host>";
        case Names::kPool:
            return "<pool>";
        case Names::kPermission:
            return "<permission>";
        case Names::kResource:
            return "<resource>";
        case Names::kDevice:
            return "<device>";
        case Names::kFile:
            break;
    }
    return "<file>";
}

/// Its own and the global ones that it takes.
std::vector<Option> options_of(const Command& command) {
    std::vector<Option> all = command.options;
    for (Option& option : global_options_of(command)) all.push_back(std::move(option));
    return all;
}

std::optional<Option> find_option(const Command& command, const std::string& word) {
    for (Option& option : options_of(command)) {
        const auto comma = option.name.find(',');
        if (word == option.name ||
            (comma != std::string::npos &&
             (word == option.name.substr(0, comma) || word == option.name.substr(comma + 1))))
            return std::move(option);
    }
    return std::nullopt;
}

std::string group_word(const std::string& path, const std::string& done) {
    const std::string rest = path.substr(done.empty() ? 0 : done.size() + 1);
    return rest.substr(0, rest.find(' '));
}

}  // namespace

std::string help_text(const std::string& path) {
    const Command* command = find_command(path);
    return command != nullptr ? command_help(*command) : overview(path);
}

std::string man_page() {
    std::string page =
        ".TH EBS\\-CLI 1 \"\" \"ublkd " UBLKD_VERSION
        "\" \"User commands\"\n.SH NAME\nebs\\-cli \\- replicated block volumes: talks to the "
        "daemon ublkd\n"
        ".SH SYNOPSIS\n\\fBebs\\-cli\\fR \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]\n.SH DESCRIPTION\n"
        "Creates, attaches and looks after the volumes of \\fBublkd\\fR(8). A volume, instance, "
        "pool or host is named by its id, by a unique beginning of it, or by its name. "
        "Sizes are whole MiB; 10G is 10 GiB. Data goes to standard output, everything else to "
        "standard error.\n.SH GLOBAL OPTIONS\n";
    add_man_options(page, global_options());
    page += ".SH COMMANDS\n";
    add_man_commands(page, Listed::kHelp);
    page +=
        ".SH ALIASES\nWith the names and flags of \\fBaws ec2\\fR, for scripts: what is printed is "
        "JSON as aws has it, unless \\-o or \\-q says otherwise. A command ends when the work is "
        "done. \\-\\-dry\\-run ends with DryRunOperation and exit code 1 where the request would "
        "have succeeded. Values are taken as aws takes them, in short or as JSON.\n";
    add_man_commands(page, Listed::kManPage);
    page +=
        ".SH EXIT STATUS\n0 done; 1 failed; 2 usage; 3 not found; 4 not allowed; 5 conflict or "
        "busy; 6 daemon unreachable; 7 \\-\\-timeout passed (the work goes on); 8 degraded "
        "(status, doctor, why); 130 interrupted.\n"
        ".SH ENVIRONMENT\n.TP\n\\fBUBLKD_SOCKET\\fR\nThe daemon's socket, where \\-\\-socket is "
        "not given.\n"
        ".SH FILES\n.TP\n\\fI/run/ublkd/api.sock\\fR\nThe daemon's socket.\n.SH SEE "
        "ALSO\n\\fBublkd\\fR(8), \\fBublkd.toml\\fR(5)\n";
    return page;
}

std::vector<std::string> completions(const std::vector<std::string>& words) {
    std::vector<std::string> found;
    const std::string typed = words.empty() ? "" : words.back();
    std::string path;
    const Command* command = nullptr;
    std::size_t used = 0;
    for (std::size_t i = 0; i + 1 < words.size() && command == nullptr; ++i) {
        path += (path.empty() ? "" : " ") + words[i];
        command = find_command(path);
        used = i + 1;
    }
    if (command == nullptr) {
        std::set<std::string> names;
        for (const Command& other : commands()) {
            if (other.listed != Listed::kHelp ||
                !(path.empty() || other.path.starts_with(path + " ")))
                continue;
            names.insert(group_word(other.path, path));
        }
        for (const std::string& name : names) {
            if (name.starts_with(typed)) found.push_back(name);
        }
        return found;
    }
    if (words.size() >= 2 && used + 1 < words.size()) {
        const auto option = find_option(*command, words[words.size() - 2]);
        if (option && !option->value.empty()) {
            if (!option->choices.empty())
                found = option->choices;
            else if (option->names != Names::kNothing)
                found.push_back(marker_of(option->names));
            return found;
        }
    }
    if (typed.starts_with('-')) {
        for (const Option& option : options_of(*command)) {
            const std::string name = option.name.substr(option.name.rfind("--"));
            if (name.starts_with(typed)) found.push_back(name);
        }
        return found;
    }
    if (!command->positionals.empty() && command->positionals.front().names != Names::kNothing)
        found.push_back(marker_of(command->positionals.front().names));
    return found;
}

std::expected<std::string, std::string> completion_script(const std::string& shell) {
    if (shell == "bash") {
        return "_ebs_cli() {\n    local IFS=$'\\n'\n    COMPREPLY=($(compgen -W \"$(ebs-cli "
               "__complete -- \"${COMP_WORDS[@]:1:COMP_CWORD}\" 2>/dev/null)\" -- "
               "\"${COMP_WORDS[COMP_CWORD]}\"))\n}\ncomplete -o default -F _ebs_cli ebs-cli\n";
    }
    if (shell == "zsh") {
        return "#compdef ebs-cli\n_ebs_cli() {\n    local -a found\n    found=(${(f)\"$(ebs-cli "
               "__complete -- ${words[2,CURRENT]} 2>/dev/null)\"})\n    compadd -a "
               "found\n}\ncompdef _ebs_cli ebs-cli\n";
    }
    if (shell == "fish") {
        return "complete -c ebs-cli -f -a '(ebs-cli __complete -- (commandline -opc)[2..-1] "
               "(commandline -ct) 2>/dev/null)'\n";
    }
    return std::unexpected("completion is there for bash, zsh and fish; '" + shell + "' was given");
}

}  // namespace ublkd::cli
