// Aliases with the names and flags of `aws ec2`, so that scripts port: each is a row of one table
// that says which command it stands for and what becomes of each flag. Run, it is the command line
// that it stands for.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "cli/arguments.h"
#include "cli/command.h"
#include "cli/shorthand.h"
#include "cli/tags.h"

namespace ublkd::cli {
namespace {

using api::Json;
using Words = std::vector<std::string>;

/// From the value of a flag to the words of what it stands for.
using Translation = Outcome<Words> (*)(const std::string& flag, const std::string& value);

Outcome<Words> the_same(const std::string&, const std::string& value) { return Words{value}; }

Outcome<Words> gibibytes(const std::string& flag, const std::string& value) {
    CLI_TRY_ASSIGN(const auto number, parse_number(flag, value));
    return Words{fmt::format("{}G", number)};
}

/// The structure's text under `key`; "" where it is left out.
Outcome<std::string> text_in(const std::string& flag, const Json& structure, const char* key) {
    const Json& value = structure[key];
    if (value.is_string() || value.is_null()) return value.as_string();
    return usage(fmt::format("{}: {} is a text; {} was given", flag, key, value.dump()));
}

Outcome<void> check_keys(const std::string& flag, const Json& structure, const Words& known) {
    for (const auto& [key, value] : structure.members()) {
        if (std::ranges::find(known, key) == known.end())
            return usage(
                fmt::format("{} takes {}; '{}' was given", flag, fmt::join(known, " and "), key));
    }
    if (structure[known.front().c_str()].is_null())
        return usage(
            fmt::format("{}: {} is needed; {} was given", flag, known.front(), structure.dump()));
    return {};
}

Outcome<std::string> tag_of(const std::string& flag, const Json& structure) {
    CLI_TRY(check_keys(flag, structure, {"Key", "Value"}));
    CLI_TRY_ASSIGN(const auto key, text_in(flag, structure, "Key"));
    CLI_TRY_ASSIGN(const auto value, text_in(flag, structure, "Value"));
    if (key.empty() || key.contains('='))
        return usage(
            fmt::format("{}: a key is not empty and has no '='; '{}' was given", flag, key));
    return key + "=" + value;
}

Outcome<Words> tags(const std::string& flag, const std::string& value) {
    Words made;
    CLI_TRY_ASSIGN(const auto structures, parse_structures(flag, value));
    for (const Json& structure : structures) {
        CLI_TRY_ASSIGN(auto tag, tag_of(flag, structure));
        made.push_back(std::move(tag));
    }
    return made;
}

Outcome<Words> tag_keys(const std::string& flag, const std::string& value) {
    Words made;
    CLI_TRY_ASSIGN(const auto structures, parse_structures(flag, value));
    for (const Json& structure : structures) {
        if (!structure["Value"].is_null())
            return usage(fmt::format(
                "{}: a tag is removed whatever its value is: give Key alone; {} was given", flag,
                structure.dump()));
        CLI_TRY(tag_of(flag, structure));
        made.push_back(structure["Key"].as_string());
    }
    return made;
}

Outcome<Words> tags_of_volumes(const std::string& flag, const std::string& value) {
    Words made;
    CLI_TRY_ASSIGN(const auto structures, parse_structures(flag, value));
    for (const Json& structure : structures) {
        CLI_TRY(check_keys(flag, structure, {"ResourceType", "Tags"}));
        if (structure["ResourceType"].as_string() != "volume")
            return usage(fmt::format("{}: ResourceType is volume; {} was given", flag,
                                     structure["ResourceType"].dump()));
        for (const Json& item : structure["Tags"].items()) {
            CLI_TRY_ASSIGN(auto tag, tag_of(flag, item));
            made.push_back(std::move(tag));
        }
    }
    return made;
}

/// aws's names of what lists are filtered by, and the keys of the JSON.
const std::map<std::string, std::string>& filter_keys() {
    static const std::map<std::string, std::string> keys{
        {"status", "State"},
        {"volume-id", "VolumeId"},
        {"size", "Size"},
        {"create-time", "CreateTime"},
        {"attachment.instance-id", "Attachments.InstanceId"},
        {"attachment.status", "Attachments.State"},
        {"attachment.device", "Attachments.Device"},
        {"attachment.attach-time", "Attachments.AttachTime"},
        {"attachment.delete-on-termination", "Attachments.DeleteOnTermination"},
        {"instance-id", "InstanceId"},
        {"launch-time", "LaunchTime"},
        {"block-device-mapping.volume-id", "Attachments.VolumeId"},
        {"tag-key", "Tags.Key"},
        {"resource-id", "ResourceId"},
        {"key", "Key"},
        {"value", "Value"},
    };
    return keys;
}

Outcome<Words> filters(const std::string& flag, const std::string& value) {
    Words made;
    CLI_TRY_ASSIGN(const auto structures, parse_structures(flag, value));
    for (const Json& structure : structures) {
        CLI_TRY(check_keys(flag, structure, {"Name", "Values"}));
        CLI_TRY_ASSIGN(std::string name, text_in(flag, structure, "Name"));
        if (!name.starts_with("tag:")) {
            const auto known = filter_keys().find(name);
            if (known == filter_keys().end()) {
                Words names{"tag:KEY"};
                for (const auto& [other, key] : filter_keys()) names.push_back(other);
                return usage(fmt::format("{}: there is no filter '{}'; there are {}", flag, name,
                                         fmt::join(names, ", ")));
            }
            name = known->second;
        }
        const Json& values = structure["Values"];
        const auto all = values.is_array() ? values.items() : std::vector{values};
        if (all.empty() || values.is_null())
            return usage(fmt::format("{}: Values is needed; {} was given", flag, structure.dump()));
        for (const Json& one : all)
            made.push_back(name + "=" + (one.is_string() ? one.as_string() : one.dump()));
    }
    return made;
}

struct Flag {
    Option option;   // as aws has it
    std::string to;  // "VOLUME" or "--size" of the command; "": it has no effect
    Translation translation = the_same;
};

struct Alias {
    std::string name;
    std::string target;  // the path of the command that it stands for
    std::vector<Flag> flags;
    std::string example;
    Words fixed{};        // more of the command's options
    bool silent = false;  // where aws prints nothing
    Json (*envelope)(Json) = nullptr;
};

Json reservations(Json answer) {
    return Json::object().set("Reservations", Json(Json::Array{std::move(answer)}));
}

const std::vector<Alias>& aliases() {
    static const std::vector<Alias> all = [] {
        const std::string none = "taken, without effect here: ";
        const auto required = [](Option option) {
            option.required = true;
            return option;
        };
        const auto refused = [](std::string name, std::string value, std::string why) {
            return Flag{
                {.name = std::move(name), .value = std::move(value), .refused = std::move(why)},
                ""};
        };
        const Option volume_id{"--volume-id", "VOLUME", "id, a unique beginning of it, or name",
                               Names::kVolume};
        const Flag volume{required(volume_id), "VOLUME"};
        const Flag volumes{{.name = "--volume-ids",
                            .value = "VOLUME",
                            .help = "these alone",
                            .names = Names::kVolume,
                            .many = true},
                           "VOLUME"};
        const Option instance{"--instance-id", "INSTANCE", "id, a unique beginning of it, or name",
                              Names::kInstance};
        const Flag dry_run{{"--dry-run", "", "only check; ends as aws does, with DryRunOperation"},
                           "--dry-run"};
        const Flag dry_look{dry_run.option, ""};
        const Flag filter{
            {.name = "--filters",
             .value = "FILTERS",
             .help = "Name=NAME,Values=A,B: one of the values fits (* stands for anything)",
             .many = true},
            "--filter",
            filters};
        const Flag resources{{.name = "--resources",
                              .value = "RESOURCE",
                              .help = "volumes and instances",
                              .names = Names::kResource,
                              .required = true,
                              .many = true},
                             "RESOURCE"};
        const auto wait = [&](const std::string& name, const std::string& state) {
            return Alias{"wait " + name,
                         "volume show",
                         {{required(volumes.option), "VOLUME"}},
                         "ebs-cli wait " + name + " --volume-ids pg",
                         {"--wait=" + state, "--timeout=10m", "--progress=none"},
                         true};
        };
        return std::vector<Alias>{
            {"create-volume",
             "volume create",
             {{{"--size", "GIB", "in GiB"}, "--size", gibibytes},
              {{"--client-token", "TOKEN", "the same request with the same token makes one volume"},
               "--client-token"},
              {{.name = "--tag-specifications",
                .value = "SPECIFICATIONS",
                .help = "ResourceType=volume,Tags=[{Key=KEY,Value=VALUE},...]",
                .many = true},
               "--tag",
               tags_of_volumes},
              dry_run,
              {{"--availability-zone", "ZONE", none + "there are failure domains"}, ""},
              {{"--volume-type", "TYPE", none + "there is one"}, ""},
              {{"--iops", "IOPS", none + "a volume has no limit"}, ""},
              {{"--throughput", "THROUGHPUT", none + "a volume has no limit"}, ""},
              refused("--snapshot-id", "SNAPSHOT", "there are no snapshots yet"),
              refused("--encrypted", "", "volumes are not encrypted yet"),
              refused("--kms-key-id", "KEY", "volumes are not encrypted yet"),
              {{"--multi-attach-enabled", "",
                "to up to 16 instances at a time, each on another host"},
               "--multi-attach"}},
             "ebs-cli create-volume --size 10 --availability-zone here"},
            {"describe-volumes",
             "volume list",
             {volumes, filter, dry_look},
             "ebs-cli describe-volumes --filters Name=status,Values=available,in-use"},
            {"delete-volume",
             "volume delete",
             {volume, dry_run},
             "ebs-cli delete-volume --volume-id vol-0a1b2c3d4e5f60718",
             {"--yes"},
             true},
            {"modify-volume",
             "volume modify",
             {volume, refused("--size", "GIB", "a volume keeps its size"),
              refused("--volume-type", "TYPE", "there is one type"),
              refused("--iops", "IOPS", "a volume has no limit"),
              refused("--throughput", "THROUGHPUT", "a volume has no limit"),
              refused("--multi-attach-enabled", "", "that is set when a volume is created")},
             "ebs-cli modify-volume --volume-id pg"},
            {"attach-volume",
             "attach",
             {volume,
              {required(instance), "--instance"},
              {{"--device", "LABEL", "a label such as /dev/sdf, unique in the instance"},
               "--device"},
              dry_run},
             "ebs-cli attach-volume --volume-id pg --instance-id web1 --device /dev/sdf"},
            {"detach-volume",
             "detach",
             {volume,
              {instance, "--instance"},
              {{"--force", "", "do not wait for who uses it; their I/O fails"}, "--force"},
              {{"--device", "LABEL", none + "an instance has a volume once"}, ""},
              dry_run},
             "ebs-cli detach-volume --volume-id pg"},
            {.name = "describe-instances",
             .target = "instance list",
             .flags = {{{.name = "--instance-ids",
                         .value = "INSTANCE",
                         .help = "these alone",
                         .names = Names::kInstance,
                         .many = true},
                        "INSTANCE"},
                       filter,
                       dry_look},
             .example = "ebs-cli describe-instances --filters Name=tag:Name,Values=web*",
             .envelope = reservations},
            {"create-tags",
             "tag add",
             {resources,
              {{.name = "--tags",
                .value = "TAGS",
                .help = "Key=KEY,Value=VALUE",
                .required = true,
                .many = true},
               "KEY=VALUE",
               tags}},
             "ebs-cli create-tags --resources pg --tags Key=team,Value=db",
             {},
             true},
            {"delete-tags",
             "tag remove",
             {resources,
              {{.name = "--tags",
                .value = "KEYS",
                .help = "Key=KEY",
                .required = true,
                .many = true},
               "KEY",
               tag_keys}},
             "ebs-cli delete-tags --resources pg --tags Key=team",
             {},
             true},
            {"describe-tags",
             "tag list",
             {filter, dry_look},
             "ebs-cli describe-tags --filters Name=key,Values=team"},
            wait("volume-available", "available"),
            wait("volume-in-use", "in-use"),
            wait("volume-deleted", "deleted"),
        };
    }();
    return all;
}

/// What each of aws's commands takes.
std::vector<Flag> common_flags() {
    const std::string none = "taken, without effect here";
    return {
        {{"--region", "REGION", none}, ""},
        {{"--profile", "PROFILE", none}, ""},
        {{"--no-cli-pager", "", none}, ""},
        {{.name = "--query", .value = "QUERY", .refused = "-q prints ids, jq reads the JSON"}, ""}};
}

/// The command lines that the alias stands for: one, or one for each of several resources where the
/// command takes one.
Outcome<std::vector<Words>> lines_of(const Alias& alias, const Context& context) {
    Words options;
    for (const Option& option : global_options_of(context.command())) {
        const std::string name = option.name.substr(option.name.rfind("--"));
        if (name == "--socket") continue;
        for (const std::string& value : context.all(name.substr(2)))
            options.push_back(option.value.empty() ? name : name + "=" + value);
    }
    if (!context.has("output") && !context.has("quiet")) options.emplace_back("--output=json");
    options.insert(options.end(), alias.fixed.begin(), alias.fixed.end());
    std::map<std::string, Words> positionals;
    for (const Flag& flag : alias.flags) {
        if (flag.to.empty()) continue;
        const bool to_option = flag.to.starts_with("--");
        for (const std::string& value : context.all(flag.option.name.substr(2))) {
            CLI_TRY_ASSIGN(const auto words, flag.translation(flag.option.name, value));
            for (const std::string& word : words) {
                if (!to_option)
                    positionals[flag.to].push_back(word);
                else
                    options.push_back(flag.option.value.empty() ? flag.to : flag.to + "=" + word);
            }
        }
    }
    Words start = words_of(alias.target);
    start.insert(start.end(), options.begin(), options.end());
    start.emplace_back("--");
    std::vector<Words> lines{start};
    for (const Positional& positional : find_command(alias.target)->positionals) {
        std::vector<Words> longer;
        const Words& given = positionals[positional.name];
        for (const Words& line : lines) {
            if (positional.many || given.empty()) {
                longer.push_back(line);
                longer.back().insert(longer.back().end(), given.begin(), given.end());
                continue;
            }
            for (const std::string& one : given) {
                longer.push_back(line);
                longer.back().push_back(one);
            }
        }
        lines = std::move(longer);
    }
    return lines;
}

Outcome<int> run_alias(Context& context) {
    const auto alias = std::ranges::find(aliases(), context.command().path, &Alias::name);
    const bool dry_run = context.has("dry-run");
    CLI_TRY_ASSIGN(const auto lines, lines_of(*alias, context));
    int status = 0;
    for (const Words& line : lines) {
        auto parsed = parse_arguments(line);
        if (!parsed) return usage(parsed.error());
        CLI_TRY_ASSIGN(auto output, output_options(parsed->invocation));
        output.silent = alias->silent || dry_run;
        output.envelope = alias->envelope;
        Context inner(std::move(parsed->invocation), context.client(), std::move(output));
        CLI_TRY_ASSIGN(status, inner.command().handler(inner));
    }
    if (!dry_run) return status;
    return std::unexpected(Failure{kExitFailed, "DryRunOperation",
                                   "the request would have succeeded, but --dry-run was given"});
}

}  // namespace

std::vector<Command> aws_commands(const std::vector<Command>& targets) {
    std::vector<Command> made;
    for (const Alias& alias : aliases()) {
        const auto target = std::ranges::find(targets, alias.target, &Command::path);
        Command& command = made.emplace_back();
        command.path = alias.name;
        command.summary = fmt::format("As aws ec2 {}: {}", alias.name, target->path);
        command.example = alias.example;
        command.handler = run_alias;
        command.prints = target->prints;
        command.listed = Listed::kManPage;
        for (const Flag& flag : alias.flags) command.options.push_back(flag.option);
        for (const Flag& flag : common_flags()) command.options.push_back(flag.option);
    }
    return made;
}

}  // namespace ublkd::cli
