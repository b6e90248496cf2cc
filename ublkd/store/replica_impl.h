// The inside of ReplicaStore (replica_store.h has the contract): state and steps shared by
// replica_open.cc, replica_store.cc (superblock, maps), replica_write.cc and replica_zero.cc. One
// object per open replica, on its reactor's thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "ublkd/io/change_queue.h"
#include "ublkd/store/map_file.h"
#include "ublkd/store/replica_store.h"
#include "ublkd/store/superblock_file.h"

namespace ublkd::store {

struct ReplicaFiles {
    std::unique_ptr<DiskFolder> folder;  // keeps the replica's lock
    std::unique_ptr<DiskFile> data;
    std::unique_ptr<DiskFile> maps;
};

class ReplicaStore::Impl {
  public:
    Impl(io::Reactor* reactor, io::BufferPool* buffers, std::unique_ptr<DiskFolder> folder,
         StoreOptions options);
    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;
    ~Impl();

    // ---- replica_open.cc
    /// Leaves nothing behind on an error.
    io::Task<Result<void>> make(const Superblock& first);
    io::Task<Result<void>> load(ReplicaId incarnation);

    // ---- replica_store.cc
    io::Task<Result<void>> update_superblock(SuperblockChange change);
    io::Task<Result<void>> mark_clean();
    io::Task<Result<void>> clear_activity(std::span<const std::uint32_t> regions,
                                          std::uint64_t through);
    io::Task<Result<void>> flush();
    Result<std::vector<block::Extent>> block_status(Range range, std::size_t max_extents) const;

    // ---- replica_read.cc
    io::Task<Result<void>> read(std::uint64_t offset_bytes, std::span<std::byte> into);

    // ---- replica_write.cc
    io::Task<Result<void>> write(std::uint64_t offset_bytes, std::span<const std::byte> data,
                                 bool fua);

    // ---- replica_zero.cc
    struct ZeroRequest {
        Range range;
        bool keep_allocated = false;
        bool fast_only = false;
        bool fua = false;
    };
    io::Task<Result<void>> zero(ZeroRequest request);

    StoreStats stats() const;
    /// What a request gets for `error` of a disk step that changes something, never success; puts
    /// the replica out unless the disk is full.
    io::Task<Result<void>> disk_failed(Error error);
    /// What the store does by itself has ended.
    io::Task<void> close() { return behind_.close(); }

    block::Geometry geometry_;
    std::optional<SuperblockFile> superblock_;
    std::optional<PersistentMap> activity_;
    std::optional<PersistentMap> allocated_;
    std::array<std::optional<PersistentMap>, kDirtyMaps> dirty_;
    std::optional<Error> failed_;
    StoreStats stats_;

  private:
    friend class UnderWay;

    /// A buffer for a bounced request: the reactor's pool's, else our reserve.
    class Bounce {
      public:
        explicit Bounce(Impl* impl) : impl_(impl) {}
        Bounce(const Bounce&) = delete;
        Bounce& operator=(const Bounce&) = delete;
        ~Bounce() {
            if (reserve_) impl_->reserve_turn_.release();
        }
        /// False: take the reserve's turn (co_await impl->reserve_turn_.acquire()), then
        /// use_reserve().
        bool try_pool(std::size_t bytes) {
            buffer_ = impl_->buffers_->try_acquire(bytes);
            return static_cast<bool>(buffer_);
        }
        void use_reserve() { reserve_ = true; }
        std::byte* data() const { return reserve_ ? impl_->reserve_.data() : buffer_.data(); }

      private:
        Impl* impl_;
        io::Buffer buffer_;
        bool reserve_ = false;
    };

    io::Task<Result<void>> blocking(const std::function<Result<void>()>* call);
    Result<void> make_files(const Superblock& first);
    Result<void> open_superblock(bool create);
    Result<void> open_rest(bool create, bool buffered);
    Result<void> set_sizes(std::uint64_t size_bytes);
    Result<void> check_sizes(std::uint64_t size_bytes) const;
    io::Task<Result<void>> format(const Superblock& first);
    template <class Lockable>
    io::Task<Result<void>> lock(Lockable* what);
    void make_parts(const Superblock& superblock);
    Result<void> find_allocated();
    static io::Task<Result<void>> sync_round(void* self);
    io::Task<Result<void>> sync_data();
    io::Task<Result<void>> remove_clean_mark();
    io::Task<void> mark_out();
    bool may_clear(std::uint64_t region, std::uint64_t before_epoch) const;

    io::Task<Result<void>> make_active(Range range);
    io::Task<Result<void>> begin_dirty_maps(LostReplicas lost);
    void begin_dirty_map(PersistentMap& map);
    io::Task<Result<void>> make_dirty(Range range);
    io::Task<Result<void>> set_bits(PersistentMap* map, Range range, std::uint64_t bit_bytes,
                                    bool durable);
    bool is_active(Range range) const {
        return activity_->on_disk(range.offset_bytes / kRegionBytes) &&
               activity_->on_disk((range.end_bytes() - 1) / kRegionBytes);
    }
    Result<void> take_units(Range range);
    bool is_hole(Range range) const;
    bool is_page_aligned(Range range) const {
        return buffered_ || ((range.offset_bytes | range.length_bytes) & (kPageBytes - 1)) == 0;
    }
    bool is_memory_aligned(const std::byte* data) const {
        return (reinterpret_cast<std::uintptr_t>(data) & (files_.data->alignment_bytes() - 1)) == 0;
    }
    io::Task<Result<void>> put(std::uint64_t offset_bytes, std::span<const std::byte> data,
                               Durability durability);
    io::Task<Result<void>> write_bounced(std::uint64_t offset_bytes,
                                         std::span<const std::byte> data, Durability durability);
    io::Task<Result<void>> write_chunk(Range pages, std::uint64_t offset_bytes,
                                       std::span<const std::byte> data, Durability durability);
    io::Task<Result<void>> fill_page(std::uint64_t offset_bytes, std::byte* page, bool hole);
    io::Task<Result<void>> read_queued(std::uint64_t offset_bytes, std::span<std::byte> into);
    io::Task<Result<void>> read_bounced(std::uint64_t offset_bytes, std::span<std::byte> into);
    io::Task<Result<void>> get(std::uint64_t offset_bytes, std::span<std::byte> into);

    io::Task<Result<void>> zero_part(ZeroRequest request, Range part);
    io::Task<Result<bool>> zero_pages(ZeroRequest request, Range pages);
    io::Task<Result<void>> write_zero_bytes(Range range);
    void drop_units(Range part);

    io::Reactor* reactor_;
    io::BufferPool* buffers_;
    ReplicaFiles files_;
    StoreOptions options_;
    bool buffered_ = false;   // no O_DIRECT: any alignment will do, but sectors are not atomic
    LostReplicas tracked_{};  // whose maps get each change; no fewer than the superblock names
    bool tracks_ = false;
    bool writable_ = false;  // in service and without clean mark: changes may begin at once
    bool marking_clean_ = false;
    bool can_punch_ = true;
    bool can_zero_range_ = true;
    bool unflushed_ = true;  // a change has ended since the last flush began

    io::ChangeQueue changes_;
    std::vector<std::uint32_t> changing_;  // per region: changes under way
    std::vector<std::uint64_t> changed_;   // per region: epoch of the newest change
    std::uint64_t epoch_ = 1;
    std::uint64_t flushed_epoch_ = 0;  // changes of lower epochs are durable
    SharedRound syncing_;
    io::AlignedMemory reserve_;
    io::Semaphore reserve_turn_{1};
    io::Event marked_out_;             // the superblock says that this replica is out, or cannot
    io::Clock::time_point told_at_{};  // and then its requests are told
    io::Gate behind_;
};

/// Registers a change for as long as it lives: its place in the queue and its regions.
class UnderWay {
  public:
    UnderWay(ReplicaStore::Impl* impl, Range range, bool exclusive);
    UnderWay(const UnderWay&) = delete;
    UnderWay& operator=(const UnderWay&) = delete;
    ~UnderWay();
    bool must_wait() const { return queued_.must_wait(); }
    io::Event::Awaiter one_ended() { return queued_.one_ended(); }

  private:
    ReplicaStore::Impl* impl_;
    Range range_;
    io::Queued queued_;
};

}  // namespace ublkd::store
