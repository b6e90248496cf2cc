#include "ublkd/front/ublk/rescue.h"

#include <algorithm>
#include <functional>
#include <set>

#include "ublkd/base/log.h"
#include "ublkd/front/ublk/device_files.h"

namespace ublkd::front::ublk {
namespace {

const char* condition_of(const FoundDevice& found) {
    switch (found.info.state) {
        case uapi::kStateLive:
            return found.server_alive ? "running" : "lost";
        case uapi::kStateQuiesced:
        case uapi::kStateFailIo:
            return "waiting for recovery";
        default:
            return found.server_alive ? "starting" : "never started";
    }
}

io::Task<bool> has_server(const UblkEnvironment* environment, std::uint32_t device_id) {
    std::function<bool()> question = [environment, device_id] {
        return server_is_alive(environment->sys_folder, device_id);
    };
    io::Offload<bool> offload(*environment->worker, question);
    co_return co_await offload;
}

}  // namespace

io::Task<Result<std::vector<FoundDevice>>> find_devices(const UblkEnvironment* environment) {
    UblkControl control(environment->driver, environment->deadlines);
    std::vector<FoundDevice> all;
    const auto ids = list_device_ids(environment->sys_folder);
    for (const std::uint32_t id : ids) {
        const auto info = co_await control.info(id);
        if (!info) {
            if (info.error().code != Errc::kNotFound)
                log::warn("device {}: {}", id, to_string(info.error()));
            continue;
        }
        FoundDevice found;
        found.info = *info;
        found.ours = is_our_tag(info->server_flags);
        all.push_back(found);
    }
    if (all.empty()) co_return all;
    std::function<std::set<std::uint32_t>()> question = [environment, &ids] {
        return served_devices(environment->sys_folder, ids);
    };
    io::Offload<std::set<std::uint32_t>> offload(*environment->worker, question);
    const auto served = co_await offload;
    for (FoundDevice& found : all) {
        found.server_alive = served.contains(found.info.device_id);
        found.condition = condition_of(found);
    }
    co_return all;
}

std::vector<FoundDevice> orphans_of(std::vector<FoundDevice> found, VolumeId volume) {
    std::erase_if(found, [volume](const FoundDevice& device) {
        return device.info.server_flags != device_tag(volume) || device.server_alive;
    });
    std::ranges::sort(found, {}, [](const FoundDevice& device) {
        return std::pair(!device.was_started(), device.info.device_id);
    });
    return found;
}

io::Task<Result<std::vector<FoundDevice>>> find_orphans_of(const UblkEnvironment* environment,
                                                           VolumeId volume) {
    auto found = co_await find_devices(environment);
    if (!found) co_return fail(found.error());
    co_return orphans_of(std::move(*found), volume);
}

io::Task<Result<void>> remove_device(const UblkEnvironment* environment, std::uint32_t device_id) {
    UblkControl control(environment->driver, environment->deadlines);
    const auto info = co_await control.info(device_id);
    if (!info) {
        if (info.error().code == Errc::kNotFound) co_return Result<void>{};
        co_return fail(info.error());
    }
    const bool alive = co_await has_server(environment, device_id);
    if (alive) co_return fail(Errc::kBusy, "the device's server is alive");
    const auto stopped = co_await control.stop(device_id);
    if (!stopped && stopped.error().code != Errc::kNotFound) co_return fail(stopped.error());
    co_return co_await control.remove(device_id);
}

}  // namespace ublkd::front::ublk
