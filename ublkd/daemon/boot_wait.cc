#include "ublkd/daemon/boot_wait.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <thread>

#include "ublkd/base/fault_injection.h"
#include "ublkd/base/files.h"
#include "ublkd/base/log.h"
#include "ublkd/daemon/system.h"

namespace ublkd::daemon {
namespace {

constexpr std::chrono::milliseconds kLook{500};

std::string mark_of(const Core& core) { return core.configuration->run_dir + "/pools-were-there"; }

}  // namespace

BootWait::BootWait(const Core& core)
    : core_(core),
      until_(std::chrono::steady_clock::now() +
             std::chrono::seconds(core.configuration->boot_wait_s)) {
    std::error_code ignored;
    over_ = std::filesystem::exists(mark_of(core), ignored) ||
            faults::rule_off("rule.boot_waits_for_pools");
}

std::string BootWait::reason(const replication::Membership& record) const {
    if (over_) return "";
    const auto missing = std::ranges::find_if(record.members, [this](const auto& member) {
        return core_.pools->is_missing(member.pool);
    });
    if (missing == record.members.end()) return "";
    return fmt::format("waits up to {} s after the boot: {}", core_.configuration->boot_wait_s,
                       core_.pools->trouble_of(missing->pool));
}

bool BootWait::any_waits() const {
    const auto volumes = core_.store->list<metadata::VolumeRecord>();
    return volumes && std::ranges::any_of(*volumes, [this](const auto& volume) {
               const auto record = core_.authority->current(volume.id);
               return record && *record && !reason(**record).empty();
           });
}

void BootWait::serve(const std::atomic<bool>& stopping) {
    while (!over_ && !stopping) {
        if (std::chrono::steady_clock::now() >= until_ || !any_waits()) {
            // Where this cannot be stored the next daemon of this boot waits again.
            if (const auto marked = write_file_durably(mark_of(core_), "", 0644); !marked)
                log::warn("{}: {}", mark_of(core_), to_string(marked.error()));
            over_ = true;
            return;
        }
        std::this_thread::sleep_for(kLook);
        (void)core_.pools->probe();
    }
}

}  // namespace ublkd::daemon
