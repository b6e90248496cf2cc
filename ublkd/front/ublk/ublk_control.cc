#include "ublkd/front/ublk/ublk_control.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "ublkd/base/fault_injection.h"
#include "ublkd/base/log.h"
#include "ublkd/base/units.h"

namespace ublkd::front::ublk {
namespace {

constexpr std::uint64_t kTagMagic = 0xeb5dULL << 48;
constexpr std::uint64_t kTagMagicMask = 0xffffULL << 48;

template <class T>
std::span<std::byte> buffer_of(T& object) {
    return std::as_writable_bytes(std::span<T, 1>(&object, 1));
}

/// For a device that is not there the kernel says ENODEV.
bool is_gone(const Error& error) { return error.sys_errno == ENODEV || error.sys_errno == ENOENT; }

Error with_not_found(const Error& error) {
    return is_gone(error) ? Error{Errc::kNotFound, error.sys_errno, error.where} : error;
}

}  // namespace

std::uint64_t device_tag(VolumeId volume) {
    const std::uint64_t mixed = volume.value() * 0x9e3779b97f4a7c15ULL;
    return kTagMagic | (mixed >> 16);
}

bool is_our_tag(std::uint64_t tag) { return (tag & kTagMagicMask) == kTagMagic; }

io::Task<Result<std::uint64_t>> UblkControl::features() {
    std::uint64_t features = 0;
    const ControlRequest request{uapi::Control::kGetFeatures, uapi::kAnyDevice, 0,
                                 buffer_of(features), deadlines_.quick};
    const auto got = co_await driver_->control(&request);
    if (!got) {
        if (got.error().code == Errc::kTimedOut || got.error().code == Errc::kNotPermitted)
            co_return fail(got.error());
        co_return fail(Errc::kUnsupported, "ublk GET_FEATURES (Linux 6.5 or newer is needed)",
                       got.error().sys_errno);
    }
    if ((features & kRequiredFeatures) != kRequiredFeatures)
        co_return fail(Errc::kUnsupported,
                       "this kernel's ublk has no user copy, recovery or reissue");
    co_return features;
}

io::Task<Result<uapi::DeviceInfo>> UblkControl::add(uapi::DeviceInfo wanted) {
    uapi::DeviceInfo info = wanted;
    const ControlRequest request{uapi::Control::kAddDevice, wanted.device_id, 0, buffer_of(info),
                                 deadlines_.add};
    const auto added = co_await driver_->control(&request);
    if (!added) {
        // EACCES and ENOSPC here are the module's limit ublks_max, not permissions (which the open
        // would have refused).
        if (added.error().sys_errno == EACCES || added.error().sys_errno == ENOSPC)
            co_return fail(Errc::kExhausted, "ublk ADD_DEV (raise ublks_max of ublk_drv)",
                           added.error().sys_errno);
        co_return fail(added.error());
    }
    const bool masked =
        (info.flags & wanted.flags) != wanted.flags && !faults::rule_off("rule.flags_read_back");
    const bool usable = info.queue_count > 0 && info.queue_depth > 0 &&
                        info.max_io_bytes >= kPageBytes && info.device_id != uapi::kAnyDevice;
    if (!masked && usable && info.server_flags == wanted.server_flags) co_return info;
    const auto removed = co_await remove(info.device_id);
    if (!removed) log::error("device {} is left: {}", info.device_id, to_string(removed.error()));
    co_return fail(Errc::kUnsupported,
                   masked ? "ublk ADD_DEV dropped a flag that we need" : "ublk ADD_DEV's answer");
}

io::Task<Result<uapi::DeviceInfo>> UblkControl::info(std::uint32_t device_id) {
    uapi::DeviceInfo info{};
    const ControlRequest request{uapi::Control::kGetDeviceInfo, device_id, 0, buffer_of(info),
                                 deadlines_.quick};
    const auto got = co_await driver_->control(&request);
    if (!got) co_return fail(with_not_found(got.error()));
    co_return info;
}

io::Task<Result<void>> UblkControl::set_parameters(std::uint32_t device_id,
                                                   uapi::Parameters wanted) {
    wanted.bytes = sizeof wanted;
    uapi::Parameters sent = wanted;
    const ControlRequest request{uapi::Control::kSetParameters, device_id, 0, buffer_of(sent),
                                 deadlines_.quick};
    CO_TRY(co_await driver_->control(&request));
    const auto kept = co_await parameters(device_id);
    if (!kept) co_return fail(kept.error());
    const bool same = (kept->types & wanted.types) == wanted.types &&
                      std::memcmp(&kept->basic, &wanted.basic, sizeof wanted.basic) == 0 &&
                      std::memcmp(&kept->discard, &wanted.discard, sizeof wanted.discard) == 0;
    if (!same)
        co_return fail(Errc::kUnsupported, "ublk SET_PARAMS dropped a parameter that we need");
    co_return Result<void>{};
}

io::Task<Result<uapi::Parameters>> UblkControl::parameters(std::uint32_t device_id) {
    uapi::Parameters kept{};
    kept.bytes = sizeof kept;  // says how much room there is
    const ControlRequest request{uapi::Control::kGetParameters, device_id, 0, buffer_of(kept),
                                 deadlines_.quick};
    CO_TRY(co_await driver_->control(&request));
    co_return kept;
}

io::Task<Result<void>> UblkControl::plain(uapi::Control command, std::uint32_t device_id,
                                          std::uint64_t data, std::chrono::milliseconds deadline) {
    const ControlRequest request{command, device_id, data, {}, deadline};
    const auto done = co_await driver_->control(&request);
    if (!done) co_return fail(with_not_found(done.error()));
    co_return Result<void>{};
}

io::Task<Result<void>> UblkControl::start(std::uint32_t device_id) {
    co_return co_await plain(uapi::Control::kStartDevice, device_id,
                             static_cast<std::uint64_t>(getpid()), deadlines_.start);
}

io::Task<Result<void>> UblkControl::stop(std::uint32_t device_id) {
    co_return co_await plain(uapi::Control::kStopDevice, device_id, 0, deadlines_.stop);
}

io::Task<Result<void>> UblkControl::remove(std::uint32_t device_id) {
    auto removed = co_await plain(uapi::Control::kDeleteDevice, device_id, 0, deadlines_.remove);
    if (!removed && removed.error().code == Errc::kTimedOut) {
        // It waits for the last user of /dev/ublkcN. The other form marks the device deleted and
        // does not wait (6.9).
        log::warn("device {}: DEL_DEV did not end in time, now DEL_DEV_ASYNC", device_id);
        removed =
            co_await plain(uapi::Control::kDeleteDeviceAsync, device_id, 0, deadlines_.remove);
    }
    if (!removed && removed.error().code == Errc::kNotFound) co_return Result<void>{};
    co_return removed;
}

io::Task<Result<void>> UblkControl::start_recovery(std::uint32_t device_id) {
    const auto until = io::Clock::now() + deadlines_.recovery;
    auto pause = std::chrono::milliseconds(5);
    for (;;) {
        auto started =
            co_await plain(uapi::Control::kStartRecovery, device_id, 0, deadlines_.quick);
        if (!started && started.error().sys_errno == EINVAL) co_return Result<void>{};
        if (started || started.error().code != Errc::kBusy || io::Clock::now() >= until)
            co_return started;
        io::Reactor* const reactor = io::Reactor::current();
        co_await reactor->sleep_for(pause);
        pause = std::min(pause * 2, std::chrono::milliseconds(250));
    }
}

io::Task<Result<void>> UblkControl::end_recovery(std::uint32_t device_id) {
    co_return co_await plain(uapi::Control::kEndRecovery, device_id,
                             static_cast<std::uint64_t>(getpid()), deadlines_.start);
}

}  // namespace ublkd::front::ublk
