// Messages between nodes and clients. Within a process they are handed over one after the other,
// each after a while. Between processes on several hosts they go over connections, which can be
// cut, and partitions (of two hosts, or of one direction between them) hold messages back or break
// connections. A message over a connection is copied; between hosts it is encoded and decoded
// (wire.h). Who asked and gets no answer because its connection is gone is told so, which is what a
// driver owes to the core.
//
// Each side has a connection of its own for what it asks the other one; the answers come back over
// it. So between an answer and a question of the same side there is no order.
//
// A connection breaks as TCP's does: what was under way may still arrive, in its order, up to any
// point; each side learns of it for itself, or by the next connection from the other side; what it
// sends before that is lost.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "tests/sim/wire.h"
#include "ublkd/replication/message.h"

namespace ublkd::sim {

class World;
struct Replica;

/// A node, by its replica's id, or a client, from kFirstClient on.
using Endpoint = std::uint64_t;
inline constexpr Endpoint kFirstClient = 32;

class Network {
  public:
    explicit Network(World* world) : world_(world), wire_(world) {}

    /// Whom a request is for stands in it; an answer goes where its request came from.
    void send(Endpoint from, const replication::Message& message);
    /// A process begins with no connection: what it should have learned of an earlier one is
    /// nothing to it.
    void opened(Endpoint endpoint);
    /// The process died or its endpoint was closed: nothing reaches it any more.
    void forget(Endpoint endpoint);
    /// `from` closes its connection to `to` and waits for no answer over it.
    void close(Endpoint from, Endpoint to);
    std::uint64_t under_way() const { return under_way_; }

    // Hosts.
    /// Until `until_us` nothing that `from` sends reaches `to`.
    void block(std::size_t from, std::size_t to, std::uint64_t until_us);
    void heal() { blocked_.clear(); }
    /// The connections between two hosts break.
    void cut(std::size_t a, std::size_t b);

  private:
    struct Sent {
        std::uint64_t id = 0;
        std::uint64_t epoch = 0;
        replication::Message message;
        bool content = false;  // message.data of an answer is for the asking side's memory
    };
    struct Side {
        std::deque<Sent> queue;  // on its way to this side
        std::uint64_t last_us = 0;
        std::uint64_t epoch = 1;  // of the connection that this side has
    };
    static constexpr std::size_t kAsker = 0;
    static constexpr std::size_t kAsked = 1;
    struct Link {
        std::array<Endpoint, 2> ends{};  // kAsker, kAsked
        std::uint64_t epoch = 1;
        std::array<Side, 2> sides{};
        bool watched = false;
        std::vector<std::size_t> routes;  // that may be open
        std::vector<std::size_t> served;  // those of a client
    };
    /// A request that was sent: where its answer goes.
    struct Route {
        Link* link = nullptr;
        std::uint64_t epoch = 0;
        bool answered = false;
        bool delivered = false;                      // the answer
        replication::Message asked{};                // without its memory
        std::span<std::byte> into{};                 // the asker's memory
        std::vector<std::byte>* received = nullptr;  // its stand-in at the other side
    };

    Link& link(Endpoint from, Endpoint to);
    std::size_t host_of(Endpoint endpoint) const;
    bool between_hosts(const Link& link) const;
    /// Up to which time nothing arrives; 0: it does.
    std::uint64_t held_until(const Link& link, std::size_t to) const;
    void transmit(Link& link, std::size_t to, Sent sent);
    void arrive(Link& link, std::size_t to, std::uint64_t id);
    void receive(Link& link, std::size_t to, const Sent& sent);
    // Scenario::strays.
    void come_late(Endpoint to, const replication::Message& message);
    void go_astray(Endpoint to, const replication::Message& message);
    void stray(Endpoint to, const replication::Message& message,
               std::function<bool(const Replica&)> comes);
    void hand_over(Link& link, std::size_t side, const replication::Message& message);
    void watch(Link& link);
    /// The connection breaks; `gone`: the side that knows, since it died or closed it; kNobody.
    void break_connection(Link& link, std::size_t gone);
    static constexpr std::size_t kNobody = 2;
    void drop_from(Side& side, std::size_t kept);
    /// This side learns that its connection is gone.
    void learn_closed(Link& link, std::size_t side);

    World* world_;
    Wire wire_;
    std::map<std::pair<Endpoint, Endpoint>, std::unique_ptr<Link>> links_;
    std::deque<Route> routes_;  // by message.route - 1
    std::map<std::pair<std::size_t, std::size_t>, std::uint64_t> blocked_;
    std::uint64_t under_way_ = 0;
    std::uint64_t ids_ = 0;
};

}  // namespace ublkd::sim
