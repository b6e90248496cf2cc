// The client's part in the protocol: sends requests to the primary, gives each change an id that it
// keeps over primaries (R8), and sends again what a primary handed back. Pure like node.h; one per
// volume and attachment.
//
// A change is not sent while one that is AppliedIds::kWindow sequences older is open, so that no
// member has forgotten an id that may still be asked for. Owner: the driver, on the volume's
// reactor. Requests live in their callers' frames.
#pragma once

#include <cstdint>
#include <optional>

#include "ublkd/replication/message.h"
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
    bool in_window(const ClientRequest& request) const;
    void send(ClientRequest& request);
    void send_parked(bool again);
    void send_waiting();
    void remove(ClientRequest& request);

    VolumeId volume_;
    std::uint64_t client_start_;
    ClientEffects* effects_;
    std::optional<Membership> record_;
    std::uint64_t sequence_ = 0;
    Slab<Open, 3> tokens_;
    ClientRequest* first_ = nullptr;  // open requests, in order of arrival
    ClientRequest* last_ = nullptr;
    std::uint64_t open_ = 0;
    std::uint64_t parked_ = 0;
    std::uint64_t waiting_ = 0;
};

}  // namespace ublkd::replication
