// The client's part in the protocol: sends requests to the primary, gives each change an id that it
// keeps over primaries (R8), and sends again what a primary handed back. Pure like node.h; one per
// volume and attachment.
//
// A change waits while another one of the same client, AppliedIds::kWindow or more sequences older
// or newer, is open (open_sequences.h), so that no member has forgotten an id that may still be
// asked for; those that wait go in order of their sequences. Owner: the driver, on the volume's
// reactor. Requests live in their callers' frames.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "ublkd/replication/message.h"
#include "ublkd/replication/open_sequences.h"
#include "ublkd/replication/slab.h"

namespace ublkd::replication {

struct ClientRequest {
    OpKind kind{};
    bool fua = false;
    bool keep_allocated = false;
    Range range{};
    RequestId id{};  // {0, 0}: the client draws one for a change
    std::span<const std::byte> data{};
    std::span<std::byte> into{};
    std::uint64_t cut = 0;      // kCut, kCutHolds
    std::uint32_t hold_ms = 0;  // kCut: changes wait no longer
    /// Called once, when `result` is there; the request may be destroyed in it (a kHold or kCut
    /// after release()).
    void (*on_done)(ClientRequest* self) noexcept = nullptr;
    Result<void> result{};

    // The client's.
    enum class Place : std::uint8_t { kNone, kWindow, kSent, kParked, kHeld };
    Place place = Place::kNone;
    std::uint64_t token = 0;
    std::uint64_t sent_number = 0;
    std::uint64_t sent_round = 0;
    ReplicaId sent_to{};
    bool lost = false;  // a kHold or kCut that was answered and lost with its primary: nothing was
                        // kept off since
    ClientRequest* previous = nullptr;
    ClientRequest* next = nullptr;
};

struct ClientConfig {
    VolumeId volume;
    std::uint64_t client_start = 0;  // drawn anew by each client
    AttachmentId attachment{};       // R15; none: the host's own
    /// R6: after so long without an answer the primary is asked whether it could give one, and then
    /// a secondary is asked to take over. 0: never, the primary lives in this process.
    std::uint32_t deadline_ms = 0;
    std::uint64_t losses = kAnyLosses;  // R9: what this guest knows; none where it is a new one
};

class ClientEffects {
  public:
    virtual ~ClientEffects() = default;
    virtual void send_to_node(const Message& message) = 0;
    // With a deadline:
    /// Client::on_timer() after `milliseconds`.
    virtual void start_timer(std::uint32_t) {}
    /// Closes the connection to `replica`: what was sent over it is answered no more, and its
    /// memory is used no more. What is sent next opens another one. False: there is none, since it
    /// is in this process; it answers in any case, and uses the memory until then.
    virtual bool close(ReplicaId) { return false; }
    /// No member of the record that is known here helps: Client::set_record() with the authority's.
    virtual void ask_authority() {}
};

class Client {
  public:
    Client(const ClientConfig& config, ClientEffects* effects)
        : config_(config),
          effects_(effects),
          losses_(config.losses),
          greeting_(config.deadline_ms != 0 && config.losses == kAnyLosses) {}
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;

    void submit(ClientRequest& request);
    /// Ends a kHold or kCut that was answered.
    void release(ClientRequest& request);
    void on_message(const Message& message);
    /// A record that was read; sends what waits for it where it is newer. `again`: also what waits
    /// under this number.
    void set_record(const Membership& record, bool again);
    /// The connection to `replica` is closed, or could not be opened: what was sent over it gets no
    /// answer.
    void on_closed(ReplicaId replica);
    void on_timer();
    const std::optional<Membership>& record() const { return record_; }
    std::uint64_t open() const { return open_; }
    std::uint64_t parked() const { return parked_; }
    /// The primary has been asked whether it answers at all, and has not yet (R6).
    bool silent() const { return silence_ != Silence::kNone && !heard_; }

  private:
    struct Open {
        std::uint64_t token = 0;
        ClientRequest* request = nullptr;
    };
    /// The changes of one client start: the front end's, ours, or one of a process before (R8).
    struct Start {
        std::uint64_t client_start = 0;
        OpenSequences open{};
        ClientRequest* waiting_first = nullptr;  // until their sequences may be sent, ascending
        ClientRequest* waiting_last = nullptr;
    };
    Start& start_of(std::uint64_t client_start);
    void forget_if_unused(std::uint64_t client_start);
    static void wait(Start& start, ClientRequest& request);
    void begin(ClientRequest& request);
    void send(ClientRequest& request);
    Message message_to_primary(MessageType type) const;
    void learn(const Membership& record);
    void hand_back(ClientRequest& request);
    void leave(ReplicaId replica);
    void watch();
    void ask_primary();
    void ask_to_take_over();
    void send_parked(bool again);
    void send_waiting(std::uint64_t client_start);
    void remove(ClientRequest& request);

    /// What was done about an answer that does not come.
    enum class Silence : std::uint8_t {
        kNone,
        kAsked,        // the primary, over the connection that is there
        kReconnected,  // and over another one
        kFailover,     // a secondary was asked to take over
    };

    ClientConfig config_;
    ClientEffects* effects_;
    std::uint64_t losses_;
    std::optional<Membership> record_;
    Silence silence_ = Silence::kNone;
    bool heard_ = false;  // from the primary since the timer began
    /// R9: the loss count is to be known before anything is sent. What was sent without it could be
    /// sent again after a loss that took the members' tables of ids.
    bool greeting_;
    bool timer_ = false;
    std::size_t asked_ = 0;  // of the members, to take over
    std::uint64_t sequence_ = 0;
    Slab<Open, 3> tokens_;
    std::vector<Start> starts_;       // those with changes that are open or wait
    ClientRequest* first_ = nullptr;  // sent or parked, in the order in which they were sent first
    ClientRequest* last_ = nullptr;
    std::uint64_t open_ = 0;
    std::uint64_t parked_ = 0;
    /// Counts what set_record() was told: a primary serves. What it handed back before is sent
    /// again, also where that is heard of later.
    std::uint64_t round_ = 0;
};

}  // namespace ublkd::replication
