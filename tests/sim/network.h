// Messages between nodes and clients. Within a process they are handed over one after the other,
// each after a while; between processes over connections, which can be cut, and partitions, which
// hold messages back or break connections. A message over a connection is copied, as a socket does;
// who asked and gets no answer because its connection is gone is told so, which is what a driver
// owes to the core.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "ublkd/replication/message.h"

namespace ublkd::sim {

class World;

/// A node, by its replica's id, or a client, from kFirstClient on.
using Endpoint = std::uint64_t;
inline constexpr Endpoint kFirstClient = 32;

class Network {
  public:
    explicit Network(World* world) : world_(world) {}

    /// Whom a request is for stands in it; an answer goes where its request came from.
    void send(Endpoint from, const replication::Message& message);
    /// The process died or its endpoint was closed: nothing reaches it any more.
    void forget(Endpoint endpoint);
    std::uint64_t under_way() const { return under_way_; }

  private:
    struct Sent {
        replication::Message message;
        std::span<const std::byte> content;  // for the memory that the asking side gave
    };
    struct Direction {
        std::deque<Sent> queue;
        std::uint64_t last_us = 0;
    };
    struct Link {
        std::array<Endpoint, 2> ends{};
        std::uint64_t epoch = 1;
        std::array<Direction, 2> to{};  // by receiving side
    };
    /// A request that was sent: where its answer goes.
    struct Route {
        Link* link = nullptr;
        std::uint64_t epoch = 0;
        std::size_t asker = 0;  // side
        bool answered = false;
    };

    Link& link(Endpoint a, Endpoint b);
    void transmit(Link& link, std::size_t to, Sent sent);
    void arrive(Link& link, std::size_t to);
    void hand_over(Endpoint from, Endpoint to, const replication::Message& message);

    World* world_;
    std::map<std::pair<Endpoint, Endpoint>, std::unique_ptr<Link>> links_;
    std::vector<Route> routes_;  // by message.route - 1
    std::uint64_t under_way_ = 0;
};

}  // namespace ublkd::sim
