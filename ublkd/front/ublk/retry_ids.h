// Which request id each tag of a device works under, in a file that outlives the process (mapped,
// under /run): after a SIGKILL the kernel sends the unanswered requests again, to the same tags,
// and the next process gives each the id that it had, so that what was applied already is
// recognised below (replication R8, `block::RequestId`).
//
// A slot is filled before the request goes down, and cleared before its answer goes to the kernel:
// a slot that is filled at start thus belongs to a request that the kernel will send again, never
// to one that the guest has seen completed. (In the other order a new request, equal by chance,
// could pass for one that was applied, and be lost.) Tags are only kept by the kernel while the
// device has no I/O scheduler, so ids are only trusted where that was so (set_tags_kept()). Owner:
// UblkDevice, on its reactor. The file survives a process, not a power cut (nor need it: the device
// does not either).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ublkd/base/ids.h"
#include "ublkd/base/result.h"
#include "ublkd/block/block_device.h"
#include "ublkd/front/ublk/ublk_uapi.h"

namespace ublkd::front::ublk {

class RetryIds {
  public:
    struct Key {
        VolumeId volume;
        std::uint32_t device_id;
        std::uint16_t queues;
        std::uint16_t depth;
    };

    /// A new, empty file; one that is there is replaced. Errors: the errno's (kNoSpace: /run is
    /// full).
    static Result<RetryIds> create(const std::string& path, const Key& key);
    /// The file of the process before. kNotFound, kCorrupt, kConflict (another volume, device or
    /// shape).
    static Result<RetryIds> open(const std::string& path, const Key& key);
    RetryIds() = default;
    RetryIds(RetryIds&& other) noexcept;
    RetryIds& operator=(RetryIds&& other) noexcept;
    ~RetryIds();

    /// The id of the request that came to this tag: the one it had before, or a new one. A request
    /// that is carried out in `parts` uses as many ids: this one and those whose sequences follow.
    block::RequestId begin(unsigned queue, unsigned tag, const uapi::IoDescriptor& descriptor,
                           std::uint64_t parts);
    /// Before the request's answer goes to the kernel.
    void end(unsigned queue, unsigned tag);

    void set_tags_kept(bool kept);
    bool tags_kept() const;
    /// What the process before left cannot be told apart from new requests: none of it is used.
    void forget_before();
    /// Whether a request that was begun has not been answered: it is sent again after a death.
    bool any_open() const;
    std::uint64_t reissued() const { return reissued_; }

  private:
    struct Header;
    struct Slot;
    static Result<RetryIds> map(int fd, const Key& key);
    Slot& slot(unsigned queue, unsigned tag) const;

    Header* header_ = nullptr;
    Slot* slots_ = nullptr;
    std::size_t bytes_ = 0;
    unsigned depth_ = 0;
    std::vector<bool>
        before_;  // per slot: filled by the process before, and its request has not come again yet
    std::uint64_t client_start_ = 0;
    std::uint64_t sequence_ = 0;
    std::uint64_t reissued_ = 0;
};

}  // namespace ublkd::front::ublk
