// nbd_load --unix PATH --export NAME --op randread|randwrite|read|write|fill --block BYTES --depth
// N --seconds S
//          [--range BYTES] [--pid SERVER]
// Puts one kind of load on an NBD server and prints one line of JSON: requests per second,
// latencies, and what the server process used per request.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "tests/bench/load_client.h"
#include "tests/bench/load_report.h"

int main(int argc, char** argv) {
    using namespace ublkd::bench;
    LoadOptions options;
    for (int i = 1; i + 1 < argc; i += 2) {
        const std::string name = argv[i];
        const char* const value = argv[i + 1];
        if (name == "--unix") {
            options.socket_path = value;
        } else if (name == "--export") {
            options.export_name = value;
        } else if (name == "--op") {
            options.operation = value;
        } else if (name == "--block") {
            options.block_bytes = static_cast<std::uint32_t>(std::strtoul(value, nullptr, 10));
        } else if (name == "--depth") {
            options.depth = static_cast<unsigned>(std::strtoul(value, nullptr, 10));
        } else if (name == "--seconds") {
            options.seconds = std::strtod(value, nullptr);
        } else if (name == "--range") {
            options.range_bytes = std::strtoull(value, nullptr, 10);
        } else if (name == "--pid") {
            options.server_pid = std::atoi(value);
        } else {
            die("unknown option " + name);
        }
    }
    if (argc % 2 == 0) die("each option has a value");
    if (options.depth == 0 || options.block_bytes == 0) die("--depth and --block are at least 1");
    LoadClient client(options);
    client.connect();
    const ProcessUse before = use_of_process(options.server_pid);
    client.run();
    const ProcessUse after = use_of_process(options.server_pid);
    client.disconnect();
    const auto count = static_cast<double>(client.completed());
    std::printf(
        "{\"iops\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"count\": %.0f, \"server_cpu_us\": "
        "%.3f, "
        "\"server_switches\": %.4f}\n",
        count / client.elapsed_seconds(), client.latencies().percentile_us(0.5),
        client.latencies().percentile_us(0.99), count, (after.cpu_us - before.cpu_us) / count,
        static_cast<double>(after.context_switches - before.context_switches) / count);
    return 0;
}
