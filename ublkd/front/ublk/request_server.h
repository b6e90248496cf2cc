// Serves the requests of one device: each tag's FETCH and COMMIT, and between them one coroutine
// per request that moves the data and asks the BlockDevice. Step 1 of a write. An idle tag costs no
// coroutine and no buffer.
//
// A request is answered in full or with an errno, never short. A flush covers every write that was
// completed before it, on all queues of the device: they are served by one BlockDevice. Owner:
// UblkDevice, on the reactor. A Tag is what the ring's entries point to, so it must not go before
// the kernel has given it back (kIoAbort): see keep_for_ever().
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "ublkd/base/result.h"
#include "ublkd/block/block_device.h"
#include "ublkd/front/ublk/kernel_driver.h"
#include "ublkd/front/ublk/retry_ids.h"
#include "ublkd/io/buffer_pool.h"
#include "ublkd/io/reactor.h"
#include "ublkd/io/sync.h"

namespace ublkd::front::ublk {

class RequestServer {
  public:
    struct Parts {
        io::Reactor* reactor;
        io::BufferPool* buffers;
        block::BlockDevice* device;
        std::unique_ptr<DeviceChannel> channel;
        RetryIds ids;
        unsigned queues;
        unsigned depth;
    };
    struct Counters {
        std::uint64_t requests = 0;
        std::uint64_t errors = 0;
    };

    explicit RequestServer(Parts parts);
    RequestServer(const RequestServer&) = delete;
    RequestServer& operator=(const RequestServer&) = delete;
    ~RequestServer();

    /// Offers every tag of every queue to the kernel, which may send requests from then on. An
    /// error: the kernel refused one; the others may be with it.
    io::Task<Result<void>> offer_all();
    /// Refuses new requests (the kernel keeps them for the next server), ends when those under way
    /// are answered.
    io::Task<void> drain();
    /// Waits until the kernel has given every tag back and no request is under way. False: not by
    /// `until`.
    io::Task<bool> wait_final(io::Clock::time_point until);
    bool is_final() const { return with_kernel_ == 0 && early_.empty() && requests_.count() == 0; }

    RetryIds& ids() { return ids_; }
    const Counters& counters() const { return counters_; }
    std::uint32_t in_flight() const { return static_cast<std::uint32_t>(requests_.count()); }

    /// For a server whose tags the kernel still holds: it stays in memory, serving nothing, until
    /// the process ends. The device's file is closed, so that the kernel sees it unused once the
    /// reactor's ring is gone.
    static void keep_for_ever(std::unique_ptr<RequestServer> server);

  private:
    struct Tag : io::Completion {
        RequestServer* server = nullptr;
        std::uint16_t queue = 0;
        std::uint16_t number = 0;
    };
    static void on_cqe(io::Completion* completion, int result, std::uint32_t flags) noexcept;
    void take_back(Tag* tag, int result);
    io::Task<void> serve(Tag* tag);
    io::Task<Result<void>> perform(Tag* tag, const uapi::IoDescriptor* descriptor);
    io::Task<Result<void>> read(Tag* tag, Range range);
    io::Task<Result<void>> write(Tag* tag, Range range, block::WriteOptions options);
    io::Task<Result<void>> clear(bool discard, Range range, block::ZeroOptions options);
    std::uint64_t parts_of(const uapi::IoDescriptor& descriptor) const;

    io::Reactor* reactor_;
    io::BufferPool* buffers_;
    block::BlockDevice* device_;
    std::unique_ptr<DeviceChannel> channel_;
    RetryIds ids_;
    std::vector<Tag> tags_;
    unsigned with_kernel_ = 0;  // tags that a ring entry points to
    io::Gate requests_;
    std::vector<Tag*> early_;  // their requests came before descriptors could be read
    bool mapped_ = false;
    bool offering_ = false;
    int refused_errno_ = 0;  // a FETCH that the kernel refused while offering
    Counters counters_;
};

}  // namespace ublkd::front::ublk
