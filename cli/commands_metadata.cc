#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "cli/cells.h"
#include "cli/command.h"
#include "cli/values.h"
#include "ublkd/base/files.h"

namespace ublkd::cli {
namespace {

using api::Json;

Outcome<std::string> absolute_path(const std::string& given) {
    std::error_code error;
    const auto path = std::filesystem::absolute(given, error);
    if (error) return usage(fmt::format("'{}' is not a path: {}", given, error.message()));
    return path.lexically_normal().string();
}

std::unexpected<Failure> not_written(const std::string& file, const Error& error) {
    return std::unexpected(
        Failure{kExitFailed, "", fmt::format("cannot write {}: {}", file, to_string(error))});
}

std::unexpected<Failure> is_there(const std::string& file) {
    return std::unexpected(
        Failure{kExitConflict, "", fmt::format("{} is there already: --force replaces it", file)});
}

/// Whole or not at all, for its owner alone. Without `force` no file is replaced.
Outcome<void> write_backup(const std::string& file, const std::string& text, bool force) {
    if (force) {
        const auto written = write_file_durably(file, text, 0600);
        if (!written) return not_written(file, written.error());
        return {};
    }
    std::error_code unknown;
    if (std::filesystem::exists(std::filesystem::symlink_status(file, unknown)))
        return is_there(file);
    const std::string beside = fmt::format("{}.{}", file, getpid());
    const auto written = write_file_durably(beside, text, 0600);
    if (!written) return not_written(file, written.error());
    const int error = ::link(beside.c_str(), file.c_str()) == 0 ? 0 : errno;
    ::unlink(beside.c_str());
    if (error == EEXIST) return is_there(file);
    if (error != 0) return not_written(file, error_from_errno(error, "link"));
    if (const auto synced = sync_folder(parent_of(file)); !synced)
        return not_written(file, synced.error());
    return {};
}

std::string content(const Json& answer) {
    const auto some = [](std::uint64_t count, const char* what) {
        return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
    };
    return fmt::format("{}, {}, {}", some(answer["Volumes"].u64(), "volume"),
                       some(answer["Pools"].u64(), "pool"), some(answer["Hosts"].u64(), "host"));
}

Outcome<int> backup(Context& context) {
    CLI_TRY_ASSIGN(const std::string file, absolute_path(context.positional("FILE")));
    CLI_TRY_ASSIGN(const auto answer, context.client().call("GET", "/v1/metadata/backup"));
    CLI_TRY(write_backup(file, answer["Backup"].as_string(), context.has("force")));
    if (!context.for_person()) return context.print_answer(Json::object().set("File", file));
    context.print(fmt::format("backed up  {}  to {}\n", content(answer), file));
    return 0;
}

Outcome<int> restore(Context& context) {
    CLI_TRY_ASSIGN(const std::string file, absolute_path(context.positional("FILE")));
    Json body = Json::object().set("Path", file);
    if (context.has("force")) body.set("Force", true);
    if (context.has("dry-run")) body.set("DryRun", true);
    if (context.has("force") && !context.has("dry-run")) {
        CLI_TRY(context.confirm(
            fmt::format("Replace the metadata of the cluster by those in {}?", file)));
    }
    CLI_TRY_ASSIGN(const auto answer, context.client().call("POST", "/v1/metadata/restore", body));
    if (context.has("dry-run")) return context.print_plan(answer);
    if (!context.for_person()) return context.print_answer(answer);
    context.print(fmt::format("to be restored  {}  of {} at {}\n", content(answer),
                              answer["CreateTime"].as_string(), answer["HostName"].as_string()));
    context.note(
        "next: systemctl restart ublkd; then each volume waits until all hosts of its "
        "replicas run, and 'ebs-cli why VOL' tells for which");
    return 0;
}

Outcome<int> rebuild(Context& context) {
    Json paths = Json::array();
    for (const std::string& given : context.positionals("DIR")) {
        CLI_TRY_ASSIGN(std::string path, absolute_path(given));
        while (path.size() > 1 && path.ends_with('/')) path.pop_back();
        paths.push(path);
    }
    Json body = Json::object().set("Paths", std::move(paths));
    if (context.has("dry-run")) body.set("DryRun", true);
    CLI_TRY_ASSIGN(const auto answer, context.client().call("POST", "/v1/metadata/rebuild", body));
    if (context.has("dry-run")) return context.print_plan(answer);
    if (!context.for_person()) return context.print_answer(answer);
    context.print(fmt::format("rebuilt  {}  {} volumes in {} pools\n", answer["HostId"].as_string(),
                              answer["Volumes"].u64(), answer["Pools"].u64()));
    context.note(
        "next: the same at each other host; then each volume waits until all hosts of its "
        "replicas have told what they know, and 'ebs-cli why VOL' tells for which");
    return 0;
}

Outcome<int> thaw(Context& context) {
    const std::string volume = context.positional("VOLUME");
    CLI_TRY(context.confirm(
        fmt::format("What hosts that have not told yet know of {} is lost then. Go on?", volume)));
    CLI_TRY_ASSIGN(const auto answer,
                   context.client().call("POST", volume_path(volume) + "/thaw", Json::object()));
    return context.print_done(answer, volume, "goes on");
}

}  // namespace

std::vector<Command> metadata_commands() {
    const Positional file{"FILE", "the backup", Names::kFile};
    return {
        {"cluster backup",
         "Write all metadata of the cluster into a file",
         "Which volumes, replicas, attachments and hosts there are; not what is in the volumes. At "
         "any host, while all goes on.",
         {file},
         {{"--force", "", "replace the file"}},
         "ebs-cli cluster backup /backup/metadata.ublkd",
         backup},
        {"cluster restore",
         "Put a backup in the place of the metadata, at the daemon's next start",
         "At the host that keeps the metadata; with etcd at any one. What changed since the backup "
         "is asked of the replicas: a volume is served again when all hosts have told what they "
         "know of it.",
         {file},
         {{"--force", "", "also where there are metadata already"},
          {"--yes", "", "do not ask"},
          kDryRun},
         "ebs-cli cluster restore /backup/metadata.ublkd",
         restore},
        {"cluster rebuild-metadata",
         "Make metadata that are lost anew, from what is in a host's pools",
         "At a daemon that is not initialized, for each host with its own pools; the first one "
         "keeps "
         "the metadata. Volumes, their sizes and members are there again; names, tags, "
         "attachments, "
         "4096-byte blocks and policies are not.",
         {{"DIR", "the folder of a pool", Names::kFile, true, true}},
         {kDryRun},
         "ebs-cli cluster rebuild-metadata /srv/ebs --dry-run",
         rebuild},
        {"cluster thaw",
         "Let a volume go on after a restore without a host that has not told what it knows",
         "For a host, a pool or a replica that is gone for good: 'ebs-cli why VOLUME' names it. "
         "The "
         "newest record that was told counts; where a newer one is lost, so is what was written "
         "under it. The volume keeps a mark that data may be lost.",
         {{"VOLUME", "id, a unique beginning of it, or name", Names::kVolume}},
         {{"--yes", "", "do not ask"}},
         "ebs-cli cluster thaw pg --yes",
         thaw},
    };
}

}  // namespace ublkd::cli
