// Members and clients on other hosts: what the core says to them goes over links.h, and what comes
// over it is handed to the core like a message of this process.
#include <algorithm>
#include <utility>

#include "ublkd/base/check.h"
#include "ublkd/replication/questions.h"
#include "ublkd/volume/host.h"

namespace ublkd::volume {

using replication::Message;
using replication::MessageType;

void Volume::Driver::accept(io::Socket socket, peer::Greeted greeted) {
    CHECK(links_.has_value(), "a volume of several hosts");
    links_->accept(std::move(socket), std::move(greeted));
}

/// A replica that is open here stays at home whatever a record says.
void Volume::Driver::learn_homes(const replication::Membership& record) {
    for (const replication::Member& member : record.members) {
        if (find(member.replica) == nullptr) homes_[member.replica] = member.host;
    }
}

bool Volume::Driver::elsewhere(ReplicaId replica) const {
    if (!links_ || !replica) return false;
    const auto home = homes_.find(replica);
    return home != homes_.end() && home->second != config_.cluster->self;
}

std::vector<ReplicaId> Volume::Driver::replicas_of(HostId host) const {
    std::vector<ReplicaId> replicas;
    for (const auto& [replica, home] : homes_) {
        if (home == host) replicas.push_back(replica);
    }
    return replicas;
}

bool Volume::Driver::is_ours(const Message& ping) const {
    return !links_ || ping.attachment == config_.cluster->attachment;
}

void Volume::Driver::send_elsewhere(const Message& message) {
    if (message.type == MessageType::kPing) {
        links_->ask_client(message);
    } else if (message.from) {
        links_->ask(Asker::kMembers, homes_.at(message.to), message);
    } else if (config_.cluster->attachment) {
        links_->ask(Asker::kClient, homes_.at(message.to), message);
    } else {
        refuse(message, "nobody is attached here", &*client_);
    }
}

void Volume::Driver::refuse(const Message& message, const char* why, replication::Client* client) {
    if (message.type != MessageType::kRequest) return;
    Message answer;
    answer.type = MessageType::kAnswer;
    answer.kind = message.kind;
    answer.volume = message.volume;
    answer.token = message.token;
    answer.failed = true;
    answer.error = Error{Errc::kNotPermitted, 0, why};
    client->on_message(answer);
}

/// From a replica that lives at `host`, to one that lives here: nothing is handed on to a third.
bool Volume::Driver::on_asked(HostId host, const Message& question) {
    if (question.record) learn_homes(*question.record);
    if (question.from && question.type != MessageType::kPing) {
        const auto home = homes_.find(question.from);
        if (home != homes_.end() && home->second != host) return false;
    }
    messages_.push(Message(question));
    pump();
    return true;
}

void Volume::Driver::on_answered(const Message& answer) {
    if (answer.record) learn_homes(*answer.record);
    messages_.push(Message(answer));
    pump();
}

void Volume::Driver::on_host_lost(Asker asker, HostId host) {
    const Error cause{Errc::kClosed, 0, "the connection to its host"};
    step([&] {
        for (const ReplicaId replica : replicas_of(host)) {
            if (asker == Asker::kClient) {
                client_->on_closed(replica);
                continue;
            }
            for (const auto& own : hosts_) own->node.on_peer_lost(replica, cause);
        }
    });
}

bool Volume::Driver::on_asker_gone(ReplicaId node, std::uint64_t route) {
    Host* const host = find(node);
    if (host == nullptr) return true;
    bool over = false;
    step([&] { over = host->node.on_asker_gone(route); });
    return over;
}

// ---- the client's

void Volume::Driver::start_timer(std::uint32_t milliseconds) {
    reactor_->start_timer(&client_timer_,
                          io::Clock::now() + std::chrono::milliseconds(milliseconds));
}

bool Volume::Driver::close(ReplicaId replica) {
    if (!elsewhere(replica)) return false;
    links_->close_client(homes_.at(replica));
    return true;
}

void Volume::Driver::ask_authority() { io::spawn(background_, read_record()); }

io::Task<void> Volume::Driver::read_record() {
    const auto record = co_await authority_->current(config_.id);
    if (!record || !*record) co_return;
    learn_homes(**record);
    step([&] {
        tell_clients(**record, false);
        // A member whose primary died before it was told is one all the same.
        for (const auto& own : hosts_) own->node.on_current(&**record);
    });
}

}  // namespace ublkd::volume
