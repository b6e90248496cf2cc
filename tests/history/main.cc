// history load --uri URI... --out FILE [options]    puts a load on a volume, writes its history
// history check FILE...                             judges one history, of one or several files
// history now                                       the clock of histories, in nanoseconds
// docs/testing-history.md
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tests/history/check.h"
#include "tests/history/history_file.h"
#include "tests/history/load.h"

namespace {

using namespace ublkd::history;

constexpr int kImpossible = 1;
constexpr int kUsage = 2;

int usage() {
    std::fputs(
        "usage: history load --uri URI [--uri URI]... --out FILE [--clients N] [--depth N]\n"
        "                    [--seconds S] [--sectors N] [--first-writer N] [--give-up SECONDS]\n"
        "                    [--reads PERCENT] [--seed N]\n"
        "       history check FILE...   0: possible, 1: not, 2: not a history\n"
        "       history now\n",
        stderr);
    return kUsage;
}

bool set_option(LoadOptions& options, const std::string& name, const char* value) {
    if (name == "--uri")
        options.uris.emplace_back(value);
    else if (name == "--out")
        options.history_path = value;
    else if (name == "--clients")
        options.clients = static_cast<unsigned>(std::strtoul(value, nullptr, 10));
    else if (name == "--depth")
        options.depth = static_cast<unsigned>(std::strtoul(value, nullptr, 10));
    else if (name == "--seconds")
        options.seconds = std::strtod(value, nullptr);
    else if (name == "--sectors")
        options.sectors = std::strtoull(value, nullptr, 10);
    else if (name == "--first-writer")
        options.first_writer = static_cast<std::uint32_t>(std::strtoul(value, nullptr, 10));
    else if (name == "--give-up")
        options.give_up_seconds = std::strtod(value, nullptr);
    else if (name == "--reads")
        options.reads = static_cast<unsigned>(std::strtoul(value, nullptr, 10));
    else if (name == "--seed")
        options.seed = std::strtoull(value, nullptr, 10);
    else
        return false;
    return true;
}

int load(const std::vector<std::string>& arguments) {
    LoadOptions options;
    if (arguments.size() % 2 != 0) return usage();
    for (std::size_t i = 0; i < arguments.size(); i += 2) {
        if (!set_option(options, arguments[i], arguments[i + 1].c_str())) return usage();
    }
    if (options.uris.empty() || options.history_path.empty() || options.clients == 0 ||
        options.depth == 0 || options.sectors == 0)
        return usage();
    const LoadResult result = run_load(options);
    std::printf("history: %lu operations begun, %lu answered, %lu connections\n", result.begun,
                result.answered, result.connections);
    if (result.all_read_at_the_end) return 0;
    std::fputs("history: not everything could be read at the end\n", stderr);
    return 1;
}

int check(const std::vector<std::string>& paths) {
    if (paths.empty()) return usage();
    std::vector<NamedText> files;
    for (const std::string& path : paths) {
        std::ifstream in(path, std::ios::binary);
        if (!in) {
            std::fprintf(stderr, "history: cannot read %s\n", path.c_str());
            return kUsage;
        }
        files.push_back(NamedText{path, {std::istreambuf_iterator<char>(in), {}}});
    }
    const auto history = parse_histories(files);
    if (!history) {
        std::fprintf(stderr, "history: %s\n", history.error().c_str());
        return kUsage;
    }
    const Verdict verdict = judge(*history);
    std::printf("%s\n", summary(*history, verdict).c_str());
    if (verdict.findings.empty()) {
        std::printf("possible: one order of operations explains every sector\n");
        return 0;
    }
    std::printf("IMPOSSIBLE, %zu findings:\n%s", verdict.findings.size(),
                report(*history, verdict).c_str());
    return kImpossible;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) return usage();
    const std::string verb = argv[1];
    const std::vector<std::string> arguments(argv + 2, argv + argc);
    if (verb == "load") return load(arguments);
    if (verb == "check") return check(arguments);
    if (verb == "now" && arguments.empty()) {
        std::printf("%lu\n", now());
        return 0;
    }
    return usage();
}
