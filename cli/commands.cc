#include "cli/command.h"

namespace ublkd::cli {

const std::vector<Option>& global_options() {
    static const std::vector<Option> options{
        {"--socket", "PATH",
         "the daemon's socket (default: UBLKD_SOCKET, else /run/ublkd/api.sock)", Names::kFile},
        {"-o,--output",
         "FORMAT",
         "table, wide, json, jsonl, yaml, tsv or id",
         Names::kNothing,
         false,
         false,
         {"table", "wide", "json", "jsonl", "yaml", "tsv", "id"}},
        {.name = "--columns",
         .value = "A,B",
         .help = "columns of table, wide and tsv, by their headers",
         .taken_by = TakenBy::kViews},
        {.name = "--filter",
         .value = "KEY=VALUE",
         .help = "of a list only what fits: a column, a key of -o json or tag:KEY; * stands for "
                 "anything; of several for one key one must fit",
         .repeated = true,
         .taken_by = TakenBy::kLists},
        {.name = "--sort",
         .value = "KEY",
         .help = "a list by a column or key; -KEY the other way round",
         .taken_by = TakenBy::kLists},
        {"-q,--quiet", "", "ids only"},
        {"-h,--help", "", "this help"},
    };
    return options;
}

std::vector<Option> global_options_of(const Command& command) {
    std::vector<Option> taken;
    for (const Option& option : global_options()) {
        if (option.taken_by == TakenBy::kViews && command.prints.view == nullptr) continue;
        if (option.taken_by == TakenBy::kLists && !command.prints.list) continue;
        taken.push_back(option);
    }
    return taken;
}

const std::vector<Command>& commands() {
    static const std::vector<Command> all = [] {
        std::vector<Command> made;
        for (auto part : {system_commands, cluster_commands, volume_commands, attachment_commands,
                          pool_commands, instance_commands, permission_commands, event_commands,
                          rescue_commands, tag_commands, metadata_commands}) {
            for (Command& command : part()) made.push_back(std::move(command));
        }
        for (Command& command : aws_commands(made)) made.push_back(std::move(command));
        return made;
    }();
    return all;
}

const Command* find_command(const std::string& path) {
    for (const Command& command : commands()) {
        if (command.path == path) return &command;
    }
    return nullptr;
}

}  // namespace ublkd::cli
