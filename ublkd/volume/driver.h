// What runs the replication core of one volume on its reactor: hands messages between the client
// and the nodes of this process, turns a node's effects into requests to its store, the authority,
// timers and buffers, and brings the results back. Nothing of the protocol is decided here.
//
// A node's effects never call back into it: messages and results that are there at once are queued,
// and handed over by pump() one after the other. Owner: Volume, on its reactor.
#pragma once

#include <coroutine>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "ublkd/io/buffer_pool.h"
#include "ublkd/io/reactor.h"
#include "ublkd/io/sync.h"
#include "ublkd/replication/authority_client.h"
#include "ublkd/replication/client.h"
#include "ublkd/replication/node.h"
#include "ublkd/store/replica_store.h"
#include "ublkd/volume/links.h"
#include "ublkd/volume/run_file.h"
#include "ublkd/volume/volume.h"

namespace ublkd::volume {

class Volume::Driver final : public replication::ClientEffects, public LinkUser {
  public:
    Driver(io::Reactor* reactor, io::BufferPool* buffers, VolumeConfig config,
           replication::AuthorityClient* authority, VolumeEvents* events);
    Driver(const Driver&) = delete;
    Driver& operator=(const Driver&) = delete;
    ~Driver() override;

    io::Task<Result<void>> start();
    io::Task<Result<void>> stop(Retries retries);
    io::Task<Result<void>> add_replica(ReplicaPlace place);
    io::Task<Result<void>> open_replica(const ReplicaPlace& place);
    io::Task<Result<void>> set_attachments(const std::vector<AttachmentId>* wanted,
                                           const std::vector<AttachmentId>* taken_off,
                                           io::Clock::time_point deadline);
    io::Task<Result<VerifyReport>> verify(OnDifference on_difference);
    void end_verify() { verify_ends_ = true; }
    VolumeStatus status() const;
    replication::HostReport known() const;
    void set_on_full(OnFull on_full);
    void try_disks(PoolId pool);
    void close_replica(ReplicaId replica);
    void accept(io::Socket socket, peer::Greeted greeted);
    Result<void> set_attachment(AttachmentId attachment, Retries of_former);
    void take_over(const std::set<ReplicaId>& but);
    Result<void> let_go(ReplicaId replica, std::uint64_t number);
    unsigned connections_of_others() const { return links_ ? links_->accepted() : 0; }
    const block::Geometry& geometry() const { return geometry_; }
    io::Gate& gate() { return gate_; }
    bool durable_writes() const { return config_.durability == Durability::kWrite; }

    /// A request of a front end, in the frame of the coroutine that awaits it.
    struct Waiting : replication::ClientRequest {
        std::coroutine_handle<> waiter;
        bool done = false;
    };
    struct Submission {
        Driver* driver;
        replication::Client* client;
        Waiting* request;
        bool await_ready() const noexcept { return false; }
        bool await_suspend(std::coroutine_handle<> self) const {
            driver->submit(*client, *request);
            if (request->done) return false;
            request->waiter = self;
            return true;
        }
        void await_resume() const noexcept {}
    };
    Submission submitted(Waiting& request) { return Submission{this, &*client_, &request}; }
    io::Task<Result<std::vector<block::Extent>>> block_status(Range range, std::size_t max_extents);

  private:
    struct Host;
    struct HostTimer;
    /// Asks the members that are here, whether somebody is attached or not.
    struct OwnEffects final : replication::ClientEffects {
        explicit OwnEffects(Driver* of) : driver(of) {}
        void send_to_node(const replication::Message& message) override;
        Driver* driver;
    };
    struct WatchTimer : io::Reactor::Timer {
        Driver* driver = nullptr;
    };

    struct ClientTimer : io::Reactor::Timer {
        Driver* driver = nullptr;
    };

    /// A result for a node, or a message, until pump() hands it over.
    struct Done {
        enum class Kind : std::uint8_t { kDisk, kStored, kExtent, kBuffer, kMarked };
        Kind kind{};
        Host* host = nullptr;
        std::uint64_t token = 0;
        Result<void> result{};
        block::Extent extent{};
        replication::BufferRef buffer{};
    };
    template <class T>
    class Ring {
      public:
        bool empty() const { return count_ == 0; }
        void push(T&& item) {
            if (count_ == items_.size()) grow();
            items_[(first_ + count_++) % items_.size()] = std::move(item);
        }
        T pop() {
            T item = std::move(items_[first_]);
            first_ = (first_ + 1) % items_.size();
            --count_;
            return item;
        }

      private:
        void grow() {
            std::vector<T> larger(items_.empty() ? 64 : items_.size() * 2);
            for (std::size_t i = 0; i < count_; ++i)
                larger[i] = std::move(items_[(first_ + i) % items_.size()]);
            items_ = std::move(larger);
            first_ = 0;
        }
        std::vector<T> items_;
        std::size_t first_ = 0;
        std::size_t count_ = 0;
    };

    // driver.cc
    Result<void> make_client(AttachmentId attachment);
    void submit(replication::Client& client, Waiting& request);
    /// Of the host itself: kNotPermitted where the primary is elsewhere.
    Submission submitted_by_host(Waiting& request) {
        return Submission{this, &own_client_, &request};
    }
    void tell_clients(const replication::Membership& record, bool serves);
    void refuse(const replication::Message& message, const char* why, replication::Client* client);
    void send_to_node(const replication::Message& message) override;
    void push_done(Done done);
    void pump();
    /// Gives a node an input from outside of pump(): what the step brings at once is queued until
    /// it has ended.
    template <class Function>
    void step(Function function) {
        const bool outer = std::exchange(pumping_, true);
        function();
        pumping_ = outer;
        pump();
    }
    void deliver(const replication::Message& message);
    void deliver(Done& done);
    void deliver_to_nobody(const replication::Message& message);
    Host* find(ReplicaId replica) const;
    Host* serving() const;
    void on_notice(const replication::Notice& notice);
    void on_record(const replication::Membership& record);
    io::Task<void> run_disk(Host* host, replication::DiskRequest request);
    void watch_disks();
    io::Task<void> try_disk(Host* host);
    void look_at_disks();
    io::Task<void> run_store(Host* host, Done::Kind kind, std::uint64_t token,
                             store::SuperblockChange change);
    io::Task<void> run_extent(Host* host, std::uint64_t token, Range range);
    io::Task<void> run_clear(Host* host, replication::RegionSet regions, std::uint64_t through);
    io::Task<void> run_buffer(Host* host, std::uint64_t token, std::size_t bytes);
    io::Task<void> run_propose(Host* host);
    io::Task<void> run_ask(Host* host);
    Result<io::BufferPool*> payloads();
    std::uint32_t keep_buffer(io::Buffer buffer);

    // remote.cc
    bool elsewhere(ReplicaId replica) const;
    void learn_homes(const replication::Membership& record);
    std::vector<ReplicaId> replicas_of(HostId host) const;
    void send_elsewhere(const replication::Message& message);
    bool is_ours(const replication::Message& ping) const;
    bool on_asked(HostId host, const replication::Message& question) override;
    void on_answered(const replication::Message& answer) override;
    void on_host_lost(Asker asker, HostId host) override;
    bool on_asker_gone(ReplicaId node, std::uint64_t route) override;
    void start_timer(std::uint32_t milliseconds) override;
    bool close(ReplicaId replica) override;
    void ask_authority() override;
    io::Task<void> read_record();

    // start.cc
    io::Task<Result<void>> open_members(const replication::Membership* record,
                                        std::vector<ReplicaId>* missing);
    Result<void> open_links();
    std::vector<replication::Membership> pending_records();
    Result<void> add_host(const ReplicaPlace& place, std::unique_ptr<store::ReplicaStore> store,
                          RunFile ids, bool first_record);
    io::Task<Result<void>> restore_ids(const ReplicaPlace& place,
                                       const store::Superblock& superblock, KeptIds* ids);
    const char* why_not_serving() const;
    Result<void> begin(const replication::Membership& record,
                       const std::vector<ReplicaId>& missing);
    io::Task<Result<void>> flush_all();
    std::vector<Host*> members_from_primary() const;
    const Host* hanging_member(const replication::Membership& record) const;
    /// Pages that differ, by offset, and how many bytes of them on all members together.
    using Differing = std::map<std::uint64_t, std::uint64_t>;
    io::Task<Result<void>> compare(Range range, VerifyReport* report, Differing* differing);
    io::Task<Result<void>> make_equal(const Differing* differing, std::uint64_t* repaired_bytes);
    bool look_after_hosts();
    io::Task<Result<std::vector<block::Extent>>> held_status(const Host* primary,
                                                             std::uint64_t number, Range range,
                                                             std::size_t max_extents);
    io::Task<Result<void>> mark_clean();
    bool others_may_retry(const replication::Membership& record) const;
    io::Task<bool> is_settled();
    io::Task<void> quiesce_hosts();
    io::Task<void> close_hosts();
    io::Task<void> maintain();
    io::Task<void> close_host(Host* host);
    void wake_maintenance();

    io::Reactor* reactor_;
    io::BufferPool* buffers_;
    VolumeConfig config_;
    replication::AuthorityClient* authority_;
    VolumeEvents* events_;
    block::Geometry geometry_;

    std::vector<std::unique_ptr<Host>> hosts_;
    std::optional<replication::Client> client_;  // of whoever is attached here
    OwnEffects own_effects_{this};
    replication::Client own_client_;
    std::unique_ptr<io::BufferPool> link_buffers_;  // what comes from other hosts
    std::optional<Links> links_;
    std::map<ReplicaId, HostId> homes_;  // of all replicas that a record named
    ClientTimer client_timer_;
    Ring<replication::Message> messages_;
    Ring<Done> done_;
    bool pumping_ = false;
    std::unique_ptr<io::BufferPool>
        payloads_;  // private copies (R13) and copies' content; made when first needed
    std::vector<io::Buffer> kept_;
    std::vector<std::uint32_t> kept_free_;

    struct Lost {
        replication::Member member;
        Error cause{Errc::kIo};
    };
    std::vector<Lost> lost_;         // why who left, for status
    std::size_t wanted_ = 0;         // members, when nothing is missing
    RunFile losses_file_;            // of KeptLosses, where somebody is attached
    std::uint64_t told_number_ = 0;  // of the newest record that events know
    bool stopping_ = false;
    bool retired_ = false;  // the last proposal was declined by who has no record of the volume
    bool maintaining_ = false;
    bool woken_ = false;
    bool verify_ends_ = false;
    std::optional<std::uint64_t> verified_bytes_;  // how far the verify that runs is
    std::uint64_t comparing_ = 0;  // verify() reads from stores: none is closed meanwhile
    WatchTimer watch_timer_;       // while a disk has requests
    io::Event serving_;
    io::Gate gate_;  // requests of front ends
    io::Gate background_;
};

}  // namespace ublkd::volume
