// ublkd: flags, start-up order, signals, shutdown. No logic.
#include <fmt/format.h>
#include <pthread.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <vector>

#include "ublkd/base/fault_injection.h"
#include "ublkd/base/log.h"
#include "ublkd/daemon/configuration.h"
#include "ublkd/daemon/daemon.h"
#include "ublkd/daemon/options.h"
#include "ublkd/daemon/start_mark.h"
#include "ublkd/daemon/system.h"
#include "ublkd/front/ublk/process_guard.h"

namespace {

using ublkd::daemon::Configuration;
using ublkd::daemon::Daemon;
using ublkd::daemon::StartMark;

int fail_start(const std::string& text) {
    fmt::print(stderr, "ublkd: {}\n", text);
    return 1;
}

void set_log_level(const Configuration& configuration) {
    ublkd::log::Level level{};
    if (ublkd::log::parse_level(configuration.log_level, level)) ublkd::log::set_level(level);
}

/// SIGHUP: the log level again. A file that cannot be read changes nothing.
void reload(const ublkd::daemon::Options& options) {
    const auto again = ublkd::daemon::load_configuration(options);
    if (!again) {
        ublkd::log::error("not reloaded: {}", again.error());
        return;
    }
    set_log_level(*again);
    ublkd::log::info("log level {}", again->log_level);
}

/// Serves until a signal ends it.
void wait_for_end(const sigset_t& signals, const ublkd::daemon::Options& options) {
    for (;;) {
        int signal = 0;
        if (sigwait(&signals, &signal) != 0) continue;
        if (signal == SIGHUP) {
            reload(options);
            continue;
        }
        ublkd::log::info("stopping ({})", signal == SIGTERM ? "TERM" : "INT");
        return;
    }
}

int run(int argc, char** argv) {
    const auto options =
        ublkd::daemon::parse_options(std::vector<std::string>(argv + 1, argv + argc));
    if (!options) {
        fmt::print(stderr, "ublkd: {}\n", options.error());
        return 2;
    }
    if (options->help) {
        fmt::print("{}", ublkd::daemon::kUsage);
        return 0;
    }
    if (options->version) {
        fmt::print("ublkd {}\n", UBLKD_VERSION);
        return 0;
    }
    // Threads inherit the mask: signals come to wait_for_end() alone.
    sigset_t signals;
    sigemptyset(&signals);
    for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    (void)std::signal(SIGPIPE, SIG_IGN);
#ifdef UBLKD_FAULTS
    if (!ublkd::faults::arm_from_environment()) return fail_start("UBLKD_FAULTS cannot be parsed");
#endif
    const auto configuration = ublkd::daemon::load_configuration(*options);
    if (!configuration) return fail_start(configuration.error());
    set_log_level(*configuration);
    ublkd::daemon::raise_limit_of_open_files();
    if (!ublkd::front::ublk::check_not_on_ublk(configuration->state_dir))
        return fail_start(configuration->state_dir +
                          " is on a ublk device: the daemon could wait for itself");
    std::optional<StartMark> mark;
    if (!options->detach_all) mark.emplace(*configuration);
    (void)ublkd::faults::hit("daemon.start.before_listen");
    for (const auto& warning : ublkd::front::ublk::guard_process()) ublkd::log::info("{}", warning);
    auto daemon = Daemon::start(*configuration, !options->detach_all);
    if (!daemon) return fail_start(daemon.error());
    if (options->detach_all) {
        const auto left = (*daemon)->detach_all();
        for (const auto& line : left) fmt::print(stderr, "ublkd: {}\n", line);
        return left.empty() ? 0 : 1;
    }
    mark.reset();
    ublkd::log::info("ublkd {} serves on {}", UBLKD_VERSION, configuration->api_socket);
    ublkd::daemon::notify_service_manager("READY=1");
    wait_for_end(signals, *options);
    ublkd::daemon::notify_service_manager("STOPPING=1");
    const auto left = (*daemon)->stop();
    for (const auto& line : left) ublkd::log::warn("left as at a death: {}", line);
    if (!left.empty()) _exit(0);  // threads of it still run
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception& exception) {  // start-up and control plane alone throw
        return fail_start(exception.what());
    }
}
