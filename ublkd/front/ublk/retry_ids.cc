#include "ublkd/front/ublk/retry_ids.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <utility>

#include "ublkd/base/fault_injection.h"
#include "ublkd/base/fd.h"

namespace ublkd::front::ublk {

/// The file: this header (64 bytes), then one slot for each tag, queue by queue. Host byte order:
/// it never leaves the host.
struct RetryIds::Header {
    std::uint64_t magic;
    std::uint64_t volume;
    std::uint32_t device_id;
    std::uint16_t queues;
    std::uint16_t depth;
    std::uint32_t tags_kept;
    std::uint32_t reserved[9];
};

struct RetryIds::Slot {
    std::uint64_t client_start;
    std::uint64_t sequence;
    std::uint64_t start_sector;
    std::uint32_t sectors;
    std::uint32_t operation;  // operation + 1; 0: nothing under way. Written last, cleared first.
};

namespace {

constexpr std::uint64_t kMagic = 0x31736469796c6275ULL;  // "ublyids1"

/// The process may be killed between any two instructions: the order of the stores is what the next
/// one relies on. (Only the compiler could reorder them: another process sees the same memory after
/// this one has ended.)
void store_in_order(std::uint32_t& where, std::uint32_t value) {
    std::atomic_ref<std::uint32_t>(where).store(value, std::memory_order_release);
    std::atomic_signal_fence(std::memory_order_seq_cst);
}

}  // namespace

RetryIds::RetryIds(RetryIds&& other) noexcept { *this = std::move(other); }

RetryIds& RetryIds::operator=(RetryIds&& other) noexcept {
    if (this == &other) return *this;
    if (header_ != nullptr) (void)munmap(header_, bytes_);
    header_ = std::exchange(other.header_, nullptr);
    slots_ = std::exchange(other.slots_, nullptr);
    bytes_ = other.bytes_;
    depth_ = other.depth_;
    before_ = std::move(other.before_);
    client_start_ = other.client_start_;
    sequence_ = other.sequence_;
    reissued_ = other.reissued_;
    return *this;
}

RetryIds::~RetryIds() {
    if (header_ != nullptr) (void)munmap(header_, bytes_);
}

Result<RetryIds> RetryIds::map(int fd, const Key& key) {
    static_assert(sizeof(Header) == 64 && sizeof(Slot) == 32);
    const std::size_t count = std::size_t{key.queues} * key.depth;
    RetryIds ids;
    ids.bytes_ = sizeof(Header) + count * sizeof(Slot);
    // The room is taken now: a full /run must not become a SIGBUS under load.
    const int error = posix_fallocate(fd, 0, static_cast<off_t>(ids.bytes_));
    if (error != 0) return fail_errno(error, "make room for the retry id file");
    void* const at =
        mmap(nullptr, ids.bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (at == MAP_FAILED) return fail_errno(errno, "map the retry id file");
    ids.header_ = static_cast<Header*>(at);
    ids.slots_ = reinterpret_cast<Slot*>(static_cast<std::byte*>(at) + sizeof(Header));
    ids.depth_ = key.depth;
    ids.before_.assign(count, false);
    ids.client_start_ = random_u64();
    return ids;
}

Result<RetryIds> RetryIds::create(const std::string& path, const Key& key) {
    (void)::unlink(path.c_str());
    const Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!file) return fail_errno(errno, "make the retry id file");
    auto ids = map(file.get(), key);
    if (!ids) return ids;
    *ids->header_ = Header{kMagic, key.volume.value(), key.device_id, key.queues, key.depth, 0, {}};
    return ids;
}

Result<RetryIds> RetryIds::open(const std::string& path, const Key& key) {
    const Fd file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (!file) return fail_errno(errno, "open the retry id file");
    struct stat info{};
    const std::size_t expected =
        sizeof(Header) + std::size_t{key.queues} * key.depth * sizeof(Slot);
    if (fstat(file.get(), &info) != 0 || static_cast<std::size_t>(info.st_size) != expected)
        return fail(Errc::kCorrupt, "size of the retry id file");
    auto ids = map(file.get(), key);
    if (!ids) return ids;
    const Header& header = *ids->header_;
    if (header.magic != kMagic) return fail(Errc::kCorrupt, "retry id file");
    if (header.volume != key.volume.value() || header.device_id != key.device_id ||
        header.queues != key.queues || header.depth != key.depth)
        return fail(Errc::kConflict, "retry id file of another device");
    for (std::size_t i = 0; i < ids->before_.size(); ++i)
        ids->before_[i] = ids->slots_[i].operation != 0;
    return ids;
}

RetryIds::Slot& RetryIds::slot(unsigned queue, unsigned tag) const {
    return slots_[std::size_t{queue} * depth_ + tag];
}

block::RequestId RetryIds::begin(unsigned queue, unsigned tag, const uapi::IoDescriptor& descriptor,
                                 std::uint64_t parts) {
    Slot& entry = slot(queue, tag);
    const std::size_t index = std::size_t{queue} * depth_ + tag;
    if (before_[index]) {
        before_[index] = false;
        const bool same = entry.operation == descriptor.operation() + 1 &&
                          entry.start_sector == descriptor.start_sector &&
                          entry.sectors == descriptor.sectors;
        if (same && !faults::rule_off("rule.reissued_request_keeps_its_id")) {
            ++reissued_;
            return block::RequestId{entry.client_start, entry.sequence};
        }
        store_in_order(entry.operation, 0);
    }
    const block::RequestId id{client_start_, sequence_ + 1};
    sequence_ += parts;
    entry.client_start = id.client_start;
    entry.sequence = id.sequence;
    entry.start_sector = descriptor.start_sector;
    entry.sectors = descriptor.sectors;
    store_in_order(entry.operation, descriptor.operation() + 1);
    return id;
}

void RetryIds::end(unsigned queue, unsigned tag) { store_in_order(slot(queue, tag).operation, 0); }

void RetryIds::set_tags_kept(bool kept) { store_in_order(header_->tags_kept, kept ? 1 : 0); }
bool RetryIds::tags_kept() const { return header_->tags_kept == 1; }

void RetryIds::forget_before() {
    for (std::size_t i = 0; i < before_.size(); ++i) {
        if (before_[i]) store_in_order(slots_[i].operation, 0);
        before_[i] = false;
    }
}

bool RetryIds::any_open() const {
    return std::any_of(slots_, slots_ + before_.size(),
                       [](const Slot& slot) { return slot.operation != 0; });
}

}  // namespace ublkd::front::ublk
