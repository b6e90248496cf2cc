#include "tests/bench/load_report.h"

#include <ctime>
#include <filesystem>
#include <fstream>
#include <string>

namespace ublkd::bench {

ProcessUse use_of_process(int pid) {
    ProcessUse use;
    if (pid == 0) return use;
    clockid_t clock{};
    timespec time{};
    if (clock_getcpuclockid(pid, &clock) == 0 && clock_gettime(clock, &time) == 0)
        use.cpu_us =
            static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) / 1e3;
    std::error_code ended;
    const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
    for (const auto& task : std::filesystem::directory_iterator(tasks, ended)) {
        std::ifstream status(task.path() / "status");
        std::string word;
        while (status >> word) {
            if (word != "voluntary_ctxt_switches:" && word != "nonvoluntary_ctxt_switches:")
                continue;
            std::uint64_t count = 0;
            status >> count;
            use.context_switches += count;
        }
    }
    return use;
}

}  // namespace ublkd::bench
