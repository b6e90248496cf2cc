// One /dev/ublkbN that shows one BlockDevice. The first step of a write: kernel request ->
// BlockDevice -> errno.
//
// Lives on the block device's reactor, with all its queues and requests; only the control commands
// and what may block on the disk itself (scheduler, links, busy check) run elsewhere. Always
// USER_RECOVERY | REISSUE: when this process dies the guest's requests wait in the kernel, and
// recover() of the next one gets them again, with the request ids that they had (retry_ids.h), so
// that a write that was applied is recognised (replication R8).
//
// Orders that are laws (docs/ublk.md): queues are served before START_DEV and before
// END_USER_RECOVERY, and until STOP_DEV has ended; the BlockDevice must be able to serve before
// either, and nothing of a dead daemon may still write to its disks when recover() is called. After
// quiesce() the object goes first, then its reactor, and the process ends.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "ublkd/base/ids.h"
#include "ublkd/base/result.h"
#include "ublkd/block/block_device.h"
#include "ublkd/front/ublk/device_links.h"
#include "ublkd/front/ublk/kernel_driver.h"
#include "ublkd/front/ublk/ublk_control.h"
#include "ublkd/io/buffer_pool.h"
#include "ublkd/io/reactor.h"
#include "ublkd/io/task.h"
#include "ublkd/io/worker.h"

namespace ublkd::front::ublk {

/// Devices whose tags this process left with the kernel: it cannot take them over itself, the next
/// process can. Thread-safe.
class HeldDevices {
  public:
    void add(std::uint32_t device_id) {
        const std::lock_guard lock(mutex_);
        ids_.insert(device_id);
    }
    void forget(std::uint32_t device_id) {
        const std::lock_guard lock(mutex_);
        ids_.erase(device_id);
    }
    bool has(std::uint32_t device_id) const {
        const std::lock_guard lock(mutex_);
        return ids_.contains(device_id);
    }

  private:
    mutable std::mutex mutex_;
    std::set<std::uint32_t> ids_;
};

/// What all devices of a daemon share. Outlives them.
struct UblkEnvironment {
    KernelDriver* driver = nullptr;
    io::Worker* worker = nullptr;  // for calls that may wait for the disk itself; no other use
    std::string run_folder = "/run/ublkd";  // ublk/<dev>.ids go here
    std::string device_folder = "/dev";
    std::string sys_folder = "/sys";
    LinkPlaces names{};
    ControlDeadlines deadlines{};
    std::shared_ptr<HeldDevices> held = std::make_shared<HeldDevices>();
};

/// Of one device, over all queues: they go to the kernel in one entry of the reactor's ring.
inline constexpr unsigned kMaxTags = 1024;
static_assert(kMaxTags <= io::ReactorOptions{}.entries);

struct UblkOptions {
    VolumeId volume;
    std::uint32_t device_id =
        uapi::kAnyDevice;      // the N wanted; taken by somebody else: another one is given
    std::uint16_t queues = 1;  // times depth: at most kMaxTags
    std::uint16_t depth = 128;
    std::uint32_t max_io_bytes = kMaxIoBytes;
    std::string label = {};  // "i-.../sdf": a second link under /dev/ebs, or empty
};

struct UblkStatus {
    std::uint64_t requests = 0;
    std::uint64_t errors = 0;
    std::uint64_t reissued = 0;  // requests recognised after a recovery
    std::uint32_t in_flight = 0;
    bool gone = false;  // somebody else stopped the device: detach() clears what is left
};

class UblkDevice {
  public:
    /// Makes a new device; when it ends /dev/ublkbN and its links are there. On an error nothing is
    /// left behind (or, where the kernel hangs, what is left is logged and found by rescue.h).
    /// `buffers` must not be the pool that `device` takes its own buffers from, else both can wait
    /// for each other. All pointers outlive the UblkDevice, `options` the call. Errors:
    /// kInvalidArgument (too many tags), kUnsupported (kernel), kNotPermitted, kExhausted
    /// (ublks_max), kTimedOut, the errno of the step.
    static io::Task<Result<std::unique_ptr<UblkDevice>>> attach(io::Reactor* reactor,
                                                                io::BufferPool* buffers,
                                                                const UblkEnvironment* environment,
                                                                block::BlockDevice* device,
                                                                const UblkOptions* options);
    /// Takes over the device `options->device_id` of a server that died or quiesced, or, with
    /// kAnyDevice, the one that carries the volume's tag (a daemon that died before it could note
    /// the number); others with that tag that were never started are removed. Queues and depth are
    /// the device's. kNotFound: there is no such device (attach then). kConflict: it has another
    /// volume's tag. kBusy: its server lives, or this process holds its tags. kClosed: it cannot be
    /// recovered (never started, lost or stuck, docs/ublk.md); it was removed, attach then. Any
    /// other error leaves
    /// it with the kernel, where the guest's requests wait; another call tries again.
    static io::Task<Result<std::unique_ptr<UblkDevice>>> recover(io::Reactor* reactor,
                                                                 io::BufferPool* buffers,
                                                                 const UblkEnvironment* environment,
                                                                 block::BlockDevice* device,
                                                                 const UblkOptions* options);
    UblkDevice(const UblkDevice&) = delete;
    UblkDevice& operator=(const UblkDevice&) = delete;
    /// detach() or quiesce() comes before.
    ~UblkDevice();

    /// Stops for good. Unless `force`: kBusy while somebody has it open, mounted or stacked upon
    /// (device_users() says who); the device then serves on. Ends with the device removed. On any
    /// other error is_stopping() says what became of it; another call goes on.
    io::Task<Result<void>> detach(bool force);
    /// True from a STOP_DEV that was carried out or may yet be: the device may be served no more,
    /// and only detach() leads on. Any thread.
    bool is_stopping() const;
    /// For SIGTERM: takes no more requests, ends those under way, and leaves the device to the next
    /// process. False where that one may be sent again, with its id (R8), what a process before
    /// this one had begun: it has not come to this one.
    io::Task<bool> quiesce();

    std::uint32_t device_id() const;
    std::string path() const;  // "/dev/ublkb0"
    UblkStatus status() const;

  private:
    class Impl;
    explicit UblkDevice(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace ublkd::front::ublk
