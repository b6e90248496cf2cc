#include "ublkd/front/ublk/ublk_device.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <filesystem>
#include <functional>
#include <optional>
#include <ranges>
#include <utility>

#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/base/log.h"
#include "ublkd/front/ublk/admin_guard.h"
#include "ublkd/front/ublk/device_files.h"
#include "ublkd/front/ublk/device_links.h"
#include "ublkd/front/ublk/device_users.h"
#include "ublkd/front/ublk/helper_process.h"
#include "ublkd/front/ublk/request_server.h"
#include "ublkd/front/ublk/rescue.h"
#include "ublkd/front/ublk/retry_ids.h"

namespace ublkd::front::ublk {
namespace {

std::string name_of(std::uint32_t device_id) { return "ublkb" + std::to_string(device_id); }

/// Kernels before 6.11 cut ranges of 4 GiB and more short, silently.
constexpr std::uint64_t kMaxRangeSectors = UINT32_MAX >> 9;
/// How long the kernel may take to give the tags back after a stop.
constexpr std::chrono::milliseconds kTagsBack{5'000};
/// How long udev has for a device's names.
constexpr std::chrono::seconds kUdevPatience{2};

Result<void> pass(const char* point) {
    const int error = faults::hit(point);
    if (error != 0) return fail_errno(error, point);
    return {};
}

std::uint32_t shift_of(std::uint64_t power_of_two) {
    return static_cast<std::uint32_t>(std::countr_zero(power_of_two));
}

uapi::Parameters parameters_for(const block::Geometry& geometry, std::uint32_t max_io_bytes) {
    uapi::Parameters p{};
    p.bytes = sizeof p;
    p.types = uapi::kParametersBasic | uapi::kParametersDiscard;
    if (geometry.read_only) p.basic.attributes |= uapi::kAttributeReadOnly;
    // FUA means nothing without a cache to pass by.
    if (geometry.volatile_write_cache)
        p.basic.attributes |= uapi::kAttributeVolatileCache | uapi::kAttributeFua;
    p.basic.logical_block_shift = static_cast<std::uint8_t>(shift_of(geometry.logical_block_bytes));
    p.basic.physical_block_shift =
        static_cast<std::uint8_t>(shift_of(geometry.physical_block_bytes));
    p.basic.optimal_io_shift = p.basic.physical_block_shift;
    p.basic.minimal_io_shift = p.basic.physical_block_shift;
    p.basic.max_sectors = max_io_bytes / kSectorBytes;
    p.basic.device_sectors = geometry.size_bytes / kSectorBytes;
    const std::uint64_t range_sectors =
        std::min(geometry.max_range_bytes / kSectorBytes, kMaxRangeSectors);
    const auto range = static_cast<std::uint32_t>(
        align_down(range_sectors, geometry.physical_block_bytes / kSectorBytes));
    p.discard.granularity = geometry.physical_block_bytes;
    p.discard.max_discard_sectors = range;
    p.discard.max_write_zeroes_sectors = range;
    p.discard.max_discard_segments = 1;
    return p;
}

}  // namespace

class UblkDevice::Impl {
  public:
    Impl(io::Reactor* reactor, io::BufferPool* buffers, const UblkEnvironment* environment,
         block::BlockDevice* device, const UblkOptions* options)
        : reactor_(reactor),
          buffers_(buffers),
          environment_(environment),
          device_(device),
          options_(*options),
          control_(environment->driver, environment->deadlines) {}
    ~Impl() {
        CHECK(server_ == nullptr, "detach() or quiesce() comes before a UblkDevice is destroyed");
    }

    io::Task<Result<void>> attach();
    io::Task<Result<void>> recover();
    io::Task<Result<void>> detach(bool force);
    io::Task<bool> quiesce();

    std::uint32_t device_id() const { return info_.device_id; }
    std::string name() const { return name_of(info_.device_id); }
    const UblkEnvironment& environment() const { return *environment_; }
    UblkStatus status() const;
    bool is_stopping() const { return stopping_; }

  private:
    io::Task<Result<void>> add();
    io::Task<Result<void>> prepare_new();
    io::Task<Result<void>> find_device();
    io::Task<Result<void>> wait_for_quiesced();
    io::Task<Result<void>> give_up_lost(const char* why);
    io::Task<Result<void>> take_over();
    io::Task<Result<void>> open_and_offer(RetryIds ids);
    io::Task<Result<std::unique_ptr<DeviceChannel>>> open_channel();
    io::Task<Result<void>> stop();
    io::Task<void> settle();
    io::Task<void> make_names();
    void add_partitions();
    io::Task<Result<void>> remove_files();
    io::Task<Result<void>> tear_down();
    void let_go();
    RetryIds::Key key() const;
    std::string ids_path() const { return environment_->run_folder + "/ublk/" + name() + ".ids"; }
    Result<RetryIds> new_ids() const;
    DeviceLinks links() const;
    /// Runs `function` on the environment's worker.
    io::Task<Result<void>> on_worker(std::function<Result<void>()>* function);
    io::Task<bool> ask_worker(std::function<bool()>* question);

    io::Reactor* reactor_;
    io::BufferPool* buffers_;
    const UblkEnvironment* environment_;
    block::BlockDevice* device_;
    UblkOptions options_;
    UblkControl control_;
    uapi::DeviceInfo info_{};
    bool kernel_scans_later_ =
        false;  // its partition scan is not part of START_DEV, or can be left out
    std::atomic<bool> stopping_ = false;
    std::unique_ptr<RequestServer> server_;
};

// ---- helpers

io::Task<Result<void>> UblkDevice::Impl::on_worker(std::function<Result<void>()>* function) {
    io::Offload<Result<void>> offload(*environment_->worker, *function);
    co_return co_await offload;
}

io::Task<bool> UblkDevice::Impl::ask_worker(std::function<bool()>* question) {
    io::Offload<bool> offload(*environment_->worker, *question);
    co_return co_await offload;
}

RetryIds::Key UblkDevice::Impl::key() const {
    return RetryIds::Key{options_.volume, info_.device_id, info_.queue_count, info_.queue_depth};
}

DeviceLinks UblkDevice::Impl::links() const {
    return DeviceLinks(environment_->names, environment_->device_folder, options_.volume,
                       options_.label, name());
}

UblkStatus UblkDevice::Impl::status() const {
    UblkStatus status;
    if (server_ == nullptr) return status;
    status.requests = server_->counters().requests;
    status.errors = server_->counters().errors;
    status.reissued = server_->ids().reissued();
    status.in_flight = server_->in_flight();
    status.gone = server_->is_final();
    return status;
}

/// Busy: somebody has the device's file open, perhaps only for a moment.
io::Task<Result<std::unique_ptr<DeviceChannel>>> UblkDevice::Impl::open_channel() {
    const auto until = io::Clock::now() + control_.deadlines().recovery;
    for (;;) {
        auto channel = environment_->driver->open(reactor_, info_);
        if (channel || channel.error().code != Errc::kBusy || io::Clock::now() >= until)
            co_return channel;
        co_await reactor_->sleep_for(std::chrono::milliseconds(20));
    }
}

io::Task<Result<void>> UblkDevice::Impl::open_and_offer(RetryIds ids) {
    auto channel = co_await open_channel();
    if (!channel) co_return fail(channel.error());
    CO_TRY(pass("ublk.opened"));
    server_ = std::make_unique<RequestServer>(
        RequestServer::Parts{reactor_, buffers_, device_, std::move(*channel), std::move(ids),
                             info_.queue_count, info_.queue_depth});
    co_return co_await server_->offer_all();
}

/// The disk is there: no scheduler (so that a request keeps its tag over a recovery), and its
/// names.
io::Task<void> UblkDevice::Impl::settle() {
    std::function<bool()> scheduler = [this] {
        return remove_scheduler(environment_->sys_folder, name());
    };
    const bool kept = co_await ask_worker(&scheduler);
    if (!kept)
        log::warn("{} has an I/O scheduler: after a crash requests are not recognised", name());
    server_->ids().set_tags_kept(kept);
    co_await make_names();
}

/// By udev where that is its work, which also tells systemd of them; what it does not make in time,
/// by us.
io::Task<void> UblkDevice::Impl::make_names() {
    const DeviceLinks names = links();
    std::function<bool()> udev_owes = [&names] { return names.udev_owes(); };
    const auto until = io::Clock::now() + kUdevPatience;
    for (;;) {
        const bool waiting = co_await ask_worker(&udev_owes);
        if (!waiting) break;
        if (io::Clock::now() >= until) {
            log::warn("{}: udev has not made its names in {} s: they are made here", name(),
                      kUdevPatience.count());
            break;
        }
        co_await reactor_->sleep_for(std::chrono::milliseconds(20));
    }
    std::function<Result<void>()> make = [&names] { return names.make(); };
    const auto made = co_await on_worker(&make);
    if (!made) log::warn("{}: {}", name(), to_string(made.error()));
}

/// For the partition scan that START_DEV left out. Nobody waits for it: it reads the disk, and
/// /dev/ublkbNpM may come later.
void UblkDevice::Impl::add_partitions() {
    environment_->worker->submit([path = environment_->device_folder + "/" + name()] {
        if (!start_in_background({"partx", "--add", path}))
            log::warn("{}: partitions are not shown: there is no partx (package util-linux)", path);
    });
}

// ---- a new device

io::Task<Result<void>> UblkDevice::Impl::add() {
    uapi::DeviceInfo wanted{};
    wanted.queue_count = options_.queues;
    wanted.queue_depth = options_.depth;
    wanted.max_io_bytes = options_.max_io_bytes;
    wanted.device_id = options_.device_id;
    wanted.server_pid = -1;
    wanted.server_flags = device_tag(options_.volume);
    wanted.flags = kRequiredFeatures;
    auto added = co_await control_.add(wanted);
    if (!added && added.error().code == Errc::kExists && wanted.device_id != uapi::kAnyDevice) {
        log::warn("device number {} is taken by somebody else: another one for {}",
                  wanted.device_id, options_.volume.to_string());
        wanted.device_id = uapi::kAnyDevice;
        added = co_await control_.add(wanted);
    }
    if (!added) co_return fail(added.error());
    info_ = *added;
    environment_->held->forget(info_.device_id);
    co_return Result<void>{};
}

io::Task<Result<void>> UblkDevice::Impl::prepare_new() {
    CO_TRY(pass("ublk.after_add_dev"));
    const std::uint32_t max_io_bytes =
        std::min({info_.max_io_bytes, device_->geometry().max_io_bytes, options_.max_io_bytes});
    CO_TRY(co_await control_.set_parameters(info_.device_id,
                                            parameters_for(device_->geometry(), max_io_bytes)));
    CO_TRY(pass("ublk.after_set_params"));
    std::optional<Result<RetryIds>> ids;
    std::function<Result<void>()> files = [this, &ids]() -> Result<void> {
        TRY(links().announce());
        ids.emplace(new_ids());
        if (!*ids) return fail(ids->error());
        return {};
    };
    CO_TRY(co_await on_worker(&files));
    {
        const WithoutAdmin no_partition_scan(!kernel_scans_later_);
        CO_TRY(co_await open_and_offer(std::move(**ids)));
    }
    CO_TRY(pass("ublk.before_start_dev"));
    CO_TRY(co_await control_.start(info_.device_id));
    CO_TRY(pass("ublk.after_start_dev"));
    co_await settle();
    if (!kernel_scans_later_) add_partitions();
    co_return Result<void>{};
}

Result<RetryIds> UblkDevice::Impl::new_ids() const {
    std::error_code error;
    std::filesystem::create_directories(environment_->run_folder + "/ublk", error);
    if (error) return fail_errno(error.value(), "make the folder of retry ids");
    return RetryIds::create(ids_path(), key());
}

io::Task<Result<void>> UblkDevice::Impl::attach() {
    if (unsigned{options_.queues} * options_.depth > kMaxTags)
        co_return fail(Errc::kInvalidArgument, "queues times depth of a ublk device");
    const auto features = co_await control_.features();
    if (!features) co_return fail(features.error());
    // The flag itself is not used: a kernel that has it (7.0) scans on a thread of its own.
    kernel_scans_later_ = (*features & uapi::kNoAutoPartitionScan) != 0 ||
                          faults::rule_off("rule.no_scan_inside_start");
    CO_TRY(co_await add());
    const auto prepared = co_await prepare_new();
    if (prepared) {
        log::info("{} shows {}", name(), options_.volume.to_string());
        co_return Result<void>{};
    }
    log::error("{} for {}: {}", name(), options_.volume.to_string(), to_string(prepared.error()));
    const auto gone = co_await tear_down();
    if (!gone) {
        log::error("{} is left behind: {}; `ebs-cli rescue` clears it", name(),
                   to_string(gone.error()));
        let_go();
    }
    co_return fail(prepared.error());
}

// ---- a device of a server that is gone

io::Task<Result<void>> UblkDevice::Impl::give_up_lost(const char* why) {
    log::error("{} of {} cannot be recovered ({}): it is removed, its users get errors", name(),
               options_.volume.to_string(), why);
    const auto removed = co_await remove_device(environment_, info_.device_id);
    if (!removed) co_return fail(removed.error());
    CO_TRY(co_await remove_files());
    co_return fail(Errc::kClosed, "the device could not be recovered and was removed");
}

/// The kernel notices the death of a server some time after it.
io::Task<Result<void>> UblkDevice::Impl::wait_for_quiesced() {
    const auto until = io::Clock::now() + control_.deadlines().lost;
    for (;;) {
        const auto info = co_await control_.info(options_.device_id);
        if (!info) co_return fail(info.error());
        info_ = *info;
        if (info_.server_flags != device_tag(options_.volume))
            co_return fail(Errc::kConflict, "the device was made for another volume");
        if (environment_->held->has(info_.device_id))
            co_return fail(Errc::kBusy, "its tags are with this process: the next one recovers it");
        if (info_.state == uapi::kStateQuiesced || info_.state == uapi::kStateFailIo)
            co_return Result<void>{};
        std::function<bool()> alive = [this] {
            return server_is_alive(environment_->sys_folder, info_.device_id);
        };
        if (info_.state == uapi::kStateLive) {
            const bool served = co_await ask_worker(&alive);
            if (served) co_return fail(Errc::kBusy, "the device's server is alive");
        }
        if (io::Clock::now() >= until || info_.state == uapi::kStateDead) {
            // Linux 6.12: a server that dies as END_USER_RECOVERY ends leaves a live device that
            // nobody can take over.
            const bool lost = info_.state == uapi::kStateLive;
            const char* const why = lost ? "live, but its server is dead" : "it was never started";
            co_return co_await give_up_lost(why);
        }
        co_await reactor_->sleep_for(std::chrono::milliseconds(20));
    }
}

/// Everything that can be done before is: from START_USER_RECOVERY to the FETCHes nothing may take
/// time, because a server that dies in between leaves the device in the hands of nobody.
io::Task<Result<void>> UblkDevice::Impl::take_over() {
    std::optional<Result<RetryIds>> ids;
    std::function<Result<void>()> files = [this, &ids]() -> Result<void> {
        TRY(links().announce());
        ids.emplace(RetryIds::open(ids_path(), key()));
        if (!*ids) {
            log::warn("{}: {}: requests that come again are not recognised", name(),
                      to_string(ids->error()));
            ids.emplace(new_ids());
        }
        if (!*ids) return fail(ids->error());
        const bool trusted =
            (*ids)->tags_kept() && has_no_scheduler(environment_->sys_folder, name());
        if (!trusted) (*ids)->forget_before();
        return {};
    };
    CO_TRY(co_await on_worker(&files));
    CO_TRY(pass("ublk.recovery_before_start"));
    const auto started = co_await control_.start_recovery(info_.device_id);
    if (!started) {
        // Busy: the dead server's requests are not over yet; a later call may find them so.
        if (started.error().code != Errc::kTimedOut) co_return started;
        co_return co_await give_up_lost("START_USER_RECOVERY does not end");
    }
    CO_TRY(pass("ublk.recovery_started"));
    const auto offered = co_await open_and_offer(std::move(**ids));
    if (!offered && server_ == nullptr && offered.error().code == Errc::kBusy) {
        // Linux before 7.0.10: a server that died with half of its tags fetched is never let go.
        co_return co_await give_up_lost("its dead server's tags are stuck in the kernel");
    }
    CO_TRY(offered);
    CO_TRY(pass("ublk.recovery_fetched"));
    CO_TRY(co_await control_.end_recovery(info_.device_id));
    CO_TRY(pass("ublk.recovery_ended"));
    co_await settle();
    co_return Result<void>{};
}

/// The device by its number, or by the volume's tag where the number is not known or not true any
/// more.
io::Task<Result<void>> UblkDevice::Impl::find_device() {
    const bool known = options_.device_id != uapi::kAnyDevice;
    Result<void> waited = fail(Errc::kNotFound, "no ublk device carries the volume's tag");
    if (known) waited = co_await wait_for_quiesced();
    if (waited) co_return waited;
    const Errc code = waited.error().code;
    if (code != Errc::kNotFound && code != Errc::kConflict) co_return waited;
    const auto orphans = co_await find_orphans_of(environment_, options_.volume);
    if (!orphans || orphans->empty()) co_return waited;
    options_.device_id = orphans->front().info.device_id;
    for (const FoundDevice& other : *orphans | std::views::drop(1)) {
        const std::string volume = options_.volume.to_string();
        if (other.was_started()) {  // requests may wait in it
            log::warn("{} is a second device of {}: `ebs-cli rescue remove` clears it",
                      name_of(other.info.device_id), volume);
            continue;
        }
        const auto removed = co_await remove_device(environment_, other.info.device_id);
        log::warn("{} of {} too had no server: {}", name_of(other.info.device_id), volume,
                  removed ? "removed" : to_string(removed.error()));
    }
    co_return co_await wait_for_quiesced();
}

io::Task<Result<void>> UblkDevice::Impl::recover() {
    const auto features = co_await control_.features();
    if (!features) co_return fail(features.error());
    CO_TRY(co_await find_device());
    const auto taken = co_await take_over();
    if (taken) {
        log::info("{} shows {} again", name(), options_.volume.to_string());
        co_return Result<void>{};
    }
    // The guest's requests go on waiting in the kernel, which is better than errors: the next start
    // tries again.
    log::error("{} of {} was not recovered: {}", name(), options_.volume.to_string(),
               to_string(taken.error()));
    let_go();
    co_return fail(taken.error());
}

// ---- the end

/// Gives the queues up as they are: nothing is served any more.
void UblkDevice::Impl::let_go() {
    if (server_ == nullptr) return;
    if (server_->is_final()) {
        server_.reset();
    } else {
        environment_->held->add(info_.device_id);
        RequestServer::keep_for_ever(std::move(server_));
    }
}

/// A stop that was not answered may be carried out later; one that was refused is undone only where
/// the device is seen to be live.
io::Task<Result<void>> UblkDevice::Impl::stop() {
    const auto stopped = co_await control_.stop(info_.device_id);
    if (stopped || stopped.error().code == Errc::kNotFound) {
        stopping_ = true;
        co_return Result<void>{};
    }
    if (stopping_ || stopped.error().code == Errc::kTimedOut) {
        stopping_ = true;
        co_return stopped;
    }
    const auto info = co_await control_.info(info_.device_id);
    stopping_ = !info || info->state != uapi::kStateLive;
    co_return stopped;
}

/// The device's names and its file of retry ids.
io::Task<Result<void>> UblkDevice::Impl::remove_files() {
    const DeviceLinks names = links();
    std::function<Result<void>()> unlink = [this, &names]() -> Result<void> {
        names.remove();
        (void)::unlink(ids_path().c_str());
        return {};
    };
    co_return co_await on_worker(&unlink);
}

/// STOP_DEV while the queues serve (it flushes the page cache through us), then the tags come back,
/// then the device's file is closed, and only then DEL_DEV, which waits for that.
io::Task<Result<void>> UblkDevice::Impl::tear_down() {
    CO_TRY(co_await stop());
    CO_TRY(pass("ublk.after_stop_dev"));
    if (server_ != nullptr) {
        const bool final = co_await server_->wait_final(io::Clock::now() + kTagsBack);
        if (!final) {
            log::error("{}: the kernel did not give its tags back after STOP_DEV", name());
            RequestServer::keep_for_ever(std::move(server_));
        }
        server_.reset();
    }
    CO_TRY(pass("ublk.before_del_dev"));
    const auto removed = co_await control_.remove(info_.device_id);
    CO_TRY(co_await remove_files());
    co_return removed;
}

io::Task<Result<void>> UblkDevice::Impl::detach(bool force) {
    if (!force && !stopping_ && !faults::rule_off("rule.detach_checks_users")) {
        std::function<bool()> used = [this] {
            return !device_users(name(), environment_->device_folder, environment_->sys_folder)
                        .empty();
        };
        const bool busy = co_await ask_worker(&used);
        if (busy) co_return fail(Errc::kBusy, "the device is in use");
    }
    const auto gone = co_await tear_down();
    if (gone) log::info("{} no longer shows {}", name(), options_.volume.to_string());
    co_return gone;
}

io::Task<bool> UblkDevice::Impl::quiesce() {
    if (server_ == nullptr) co_return true;
    co_await server_->drain();
    const bool all_answered =
        !server_->ids().any_open() || faults::rule_off("rule.retries_keep_ids");
    log::info("{} waits for the next start", name());
    let_go();
    co_return all_answered;
}

// ---- the public face

UblkDevice::UblkDevice(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
UblkDevice::~UblkDevice() = default;

io::Task<Result<std::unique_ptr<UblkDevice>>> UblkDevice::attach(io::Reactor* reactor,
                                                                 io::BufferPool* buffers,
                                                                 const UblkEnvironment* environment,
                                                                 block::BlockDevice* device,
                                                                 const UblkOptions* options) {
    auto impl = std::make_unique<Impl>(reactor, buffers, environment, device, options);
    CO_TRY(co_await impl->attach());
    std::unique_ptr<UblkDevice> made(new UblkDevice(std::move(impl)));
    co_return made;
}

io::Task<Result<std::unique_ptr<UblkDevice>>> UblkDevice::recover(
    io::Reactor* reactor, io::BufferPool* buffers, const UblkEnvironment* environment,
    block::BlockDevice* device, const UblkOptions* options) {
    auto impl = std::make_unique<Impl>(reactor, buffers, environment, device, options);
    CO_TRY(co_await impl->recover());
    std::unique_ptr<UblkDevice> made(new UblkDevice(std::move(impl)));
    co_return made;
}

io::Task<Result<void>> UblkDevice::detach(bool force) { return impl_->detach(force); }
io::Task<bool> UblkDevice::quiesce() { return impl_->quiesce(); }
std::uint32_t UblkDevice::device_id() const { return impl_->device_id(); }
std::string UblkDevice::path() const {
    return impl_->environment().device_folder + "/" + impl_->name();
}
UblkStatus UblkDevice::status() const { return impl_->status(); }
bool UblkDevice::is_stopping() const { return impl_->is_stopping(); }

}  // namespace ublkd::front::ublk
