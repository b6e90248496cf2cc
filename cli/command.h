// The commands of ebs-cli as data: from this one table come the parser (arguments.cc), --help, the
// man page and the shell completion (help.cc), so that they cannot differ. A handler gets what was
// given and returns an exit code or a Failure.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "cli/client.h"
#include "cli/output.h"
#include "ublkd/base/result.h"

namespace ublkd::cli {

/// What a value names: for completion.
enum class Names {
    kNothing,
    kVolume,
    kInstance,
    kHost,
    kPool,
    kPermission,
    kResource,
    kDevice,
    kFile
};

/// Which commands take a global option.
enum class TakenBy { kEach, kViews, kLists };

struct Option {
    std::string name;   // "--size"; or "-o,--output"
    std::string value;  // "SIZE"; "" for a flag
    std::string help{};
    Names names = Names::kNothing;
    bool repeated = false;  // may be given several times
    bool required = false;
    std::vector<std::string> choices{};
    TakenBy taken_by = TakenBy::kEach;
    bool many = false;      // takes all words that follow, up to the next option
    std::string refused{};  // known, but cannot be honoured: why
};

inline const Option kDryRun{"--dry-run", "", "ask the daemon to check and to say what it would do"};

struct Positional {
    std::string name;  // "VOLUME"
    std::string help{};
    Names names = Names::kNothing;
    bool required = true;
    bool many = false;  // takes all that follow
};

/// What a command prints: one resource or a list of them, in the columns of a view; else its own.
struct Prints {
    const View& (*view)() = nullptr;
    bool list = false;
};
inline Prints item_of(const View& (*view)()) { return {view, false}; }
inline Prints list_of(const View& (*view)()) { return {view, true}; }

/// Where a command is told of.
enum class Listed { kHelp, kManPage, kNowhere };

class Context;
using Handler = Outcome<int> (*)(Context& context);

struct Command {
    std::string path;         // "volume create"
    std::string summary;      // one line
    std::string description;  // paragraphs for --help and the man page; may be empty
    std::vector<Positional> positionals;
    std::vector<Option> options;
    std::string example;  // one or more lines
    Handler handler;
    Prints prints{};
    Listed listed = Listed::kHelp;
};

/// All commands, in the order of the help.
const std::vector<Command>& commands();
const std::vector<Option>& global_options();
/// Those of them that the command takes.
std::vector<Option> global_options_of(const Command& command);
const Command* find_command(const std::string& path);

// The parts of commands(), one per commands_<noun>.cc.
std::vector<Command> system_commands();
std::vector<Command> cluster_commands();
std::vector<Command> volume_commands();
std::vector<Command> attachment_commands();
std::vector<Command> pool_commands();
std::vector<Command> instance_commands();
std::vector<Command> permission_commands();
std::vector<Command> event_commands();
std::vector<Command> rescue_commands();
std::vector<Command> tag_commands();
std::vector<Command> metadata_commands();
/// Aliases of them.
std::vector<Command> aws_commands(const std::vector<Command>& targets);

/// What was given to a command.
struct Invocation {
    const Command* command = nullptr;
    std::map<std::string, std::vector<std::string>>
        options;  // by long name without dashes; a flag has one ""
    std::map<std::string, std::vector<std::string>> positionals;  // by name
};

/// What the global options of an invocation say of the output.
Outcome<OutputOptions> output_options(const Invocation& invocation);

class Context {
  public:
    Context(Invocation invocation, Client client, OutputOptions output)
        : invocation_(std::move(invocation)),
          client_(std::move(client)),
          output_(std::move(output)) {}

    bool has(const std::string& option) const { return invocation_.options.contains(option); }
    std::string option(const std::string& name) const;
    std::vector<std::string> all(const std::string& name) const;
    std::string positional(const std::string& name) const;
    std::vector<std::string> positionals(const std::string& name) const;
    Client& client() { return client_; }
    const OutputOptions& output() const { return output_; }
    const Command& command() const { return *invocation_.command; }
    bool quiet() const { return output_.format == Format::kId; }
    /// table or wide, without columns of one's own: meant for a person.
    bool for_person() const { return is_table() && output_.columns.empty(); }
    bool is_table() const {
        return output_.format == Format::kTable || output_.format == Format::kWide;
    }

    void print(const std::string& text) const;  // stdout
    void note(const std::string& text) const;   // stderr, with a newline
    Outcome<int> print_list(const View& view, const api::Json& answer) const;
    /// The resources under `path` that are named, else all: {list_key: [...]}.
    Outcome<api::Json> fetch_list(const std::string& path, const std::string& list_key,
                                  const std::vector<std::string>& names);
    Outcome<int> print_item(const View& view, const api::Json& item) const;
    /// The answer as it is, in json, jsonl or yaml; for what is no resource.
    Outcome<int> print_answer(const api::Json& answer) const;
    /// What a dry run answered: a line per step for a person, else the answer.
    Outcome<int> print_plan(const api::Json& answer) const;
    /// That `what` was done to `id`: a sentence for a person, the id alone (-q), else the answer.
    Outcome<int> print_done(const api::Json& answer, const std::string& id,
                            const std::string& what) const;
    /// Asks on a terminal; elsewhere --yes is needed.
    Outcome<void> confirm(const std::string& question) const;
    /// --timeout, or `fallback`.
    Outcome<std::chrono::milliseconds> timeout(std::chrono::milliseconds fallback) const;

  private:
    Invocation invocation_;
    Client client_;
    OutputOptions output_;
};

inline std::unexpected<Failure> usage(std::string message) {
    return std::unexpected(Failure{kExitUsage, "", std::move(message)});
}

}  // namespace ublkd::cli

#define CLI_TRY_ASSIGN_(tmp, lhs, expr)                       \
    auto tmp = (expr);                                        \
    if (!tmp) return std::unexpected(std::move(tmp.error())); \
    lhs = std::move(*tmp)
#define CLI_TRY_(tmp, expr) \
    auto tmp = (expr);      \
    if (!tmp) return std::unexpected(std::move(tmp.error()))
#define CLI_TRY_ASSIGN(lhs, expr) CLI_TRY_ASSIGN_(UBLKD_CONCAT(cli_try_, __COUNTER__), lhs, expr)
#define CLI_TRY(expr) CLI_TRY_(UBLKD_CONCAT(cli_try_, __COUNTER__), expr)
