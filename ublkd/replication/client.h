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
    /// Called once, when `result` is there; the request may be destroyed in it (a kHold after
    /// release()).
    void (*on_done)(ClientRequest* self) noexcept = nullptr;
    Result<void> result{};

    // The client's.
    enum class Place : std::uint8_t { kNone, kWindow, kSent, kParked, kHeld };
    Place place = Place::kNone;
    std::uint64_t token = 0;
    std::uint64_t sent_number = 0;
    bool lost =
        false;  // a kHold that was answered and lost with its primary: nothing was kept off since
    ClientRequest* previous = nullptr;
    ClientRequest* next = nullptr;
};

class ClientEffects {
  public:
    virtual ~ClientEffects() = default;
    virtual void send_to_node(const Message& message) = 0;
};

class Client {
  public:
    /// `client_start`: drawn anew by each client.
    Client(VolumeId volume, std::uint64_t client_start, ClientEffects* effects)
        : volume_(volume), client_start_(client_start), effects_(effects) {}
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;

    void submit(ClientRequest& request);
    /// Ends a kHold that was answered.
    void release(ClientRequest& request);
    void on_message(const Message& message);
    /// A record that was read; sends what waits for it where it is newer. `again`: also what waits
    /// under this number.
    void set_record(const Membership& record, bool again);
    const std::optional<Membership>& record() const { return record_; }
    std::uint64_t open() const { return open_; }
    std::uint64_t parked() const { return parked_; }

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
    void send_parked(bool again);
    void send_waiting(std::uint64_t client_start);
    void remove(ClientRequest& request);

    VolumeId volume_;
    std::uint64_t client_start_;
    ClientEffects* effects_;
    std::optional<Membership> record_;
    std::uint64_t sequence_ = 0;
    Slab<Open, 3> tokens_;
    std::vector<Start> starts_;       // those with changes that are open or wait
    ClientRequest* first_ = nullptr;  // sent or parked, in the order in which they were sent first
    ClientRequest* last_ = nullptr;
    std::uint64_t open_ = 0;
    std::uint64_t parked_ = 0;
};

}  // namespace ublkd::replication
