#include "tests/sim/network.h"

#include <algorithm>

#include "tests/sim/world.h"

namespace ublkd::sim {

using replication::Message;
using replication::MessageType;

namespace {

bool is_answer(MessageType type) {
    switch (type) {
        case MessageType::kAnswer:
        case MessageType::kMoved:
        case MessageType::kReplicated:
        case MessageType::kConfirmed:
        case MessageType::kAdopted:
        case MessageType::kProbed:
        case MessageType::kCopied:
        case MessageType::kFetched:
        case MessageType::kFinished:
            return true;
        default:
            return false;
    }
}

}  // namespace

Network::Link& Network::link(Endpoint a, Endpoint b) {
    auto& link = links_[std::minmax(a, b)];
    if (!link) {
        link = std::make_unique<Link>();
        link->ends = {std::min(a, b), std::max(a, b)};
    }
    return *link;
}

void Network::send(Endpoint from, const Message& message) {
    if (is_answer(message.type)) {
        if (message.route == 0) return;
        Route& route = routes_[message.route - 1];
        if (route.answered || route.epoch != route.link->epoch) return;
        route.answered = true;
        transmit(*route.link, route.asker, {.message = message, .content = {}});
        return;
    }
    Link& way = link(from, message.to.value());
    const std::size_t to = way.ends[0] == from ? 1 : 0;
    Message copy = message;
    routes_.push_back({.link = &way, .epoch = way.epoch, .asker = 1 - to});
    copy.route = routes_.size();
    transmit(way, to, {.message = std::move(copy), .content = {}});
}

void Network::transmit(Link& link, std::size_t to, Sent sent) {
    Direction& direction = link.to[to];
    direction.queue.push_back(std::move(sent));
    ++under_way_;
    const std::uint64_t now = world_->clock.now_us();
    direction.last_us = std::max(direction.last_us, now + world_->timing.spread(2, 500));
    world_->clock.after(direction.last_us - now, world_->running_of(link.ends[to]),
                        [this, &link, to, epoch = link.epoch] {
                            if (epoch == link.epoch) arrive(link, to);
                        });
}

void Network::arrive(Link& link, std::size_t to) {
    Direction& direction = link.to[to];
    const Sent sent = std::move(direction.queue.front());
    direction.queue.pop_front();
    --under_way_;
    hand_over(link.ends[1 - to], link.ends[to], sent.message);
}

void Network::hand_over(Endpoint from, Endpoint to, const Message& message) {
    if (tracing)
        trace_message(world_->clock.now_us(), world_->name_of(from).c_str(),
                      world_->name_of(to).c_str(), message);
    if (to >= kFirstClient) {
        world_->attachment(to)->client->on_message(message);
    } else if (Replica* const replica = world_->replica(ReplicaId(to)); replica != nullptr) {
        replica->node.on_message(message);
    } else if (from >= kFirstClient) {
        Message moved;  // no such replica here (any more)
        moved.type = MessageType::kMoved;
        moved.volume = message.volume;
        moved.token = message.token;
        moved.route = message.route;
        send(to, moved);
    } else if (Replica* const sender = world_->replica(ReplicaId(from)); sender != nullptr) {
        sender->node.on_peer_lost(ReplicaId(to), Error{Errc::kNotFound});
    }
}

void Network::forget(Endpoint endpoint) {
    for (auto& [ends, link] : links_) {
        if (ends.first != endpoint && ends.second != endpoint) continue;
        ++link->epoch;
        for (Direction& direction : link->to) {
            under_way_ -= direction.queue.size();
            direction = Direction{};
        }
    }
}

}  // namespace ublkd::sim
