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

void Volume::Driver::learn_homes(const replication::Membership& record) {
    for (const replication::Member& member : record.members) homes_[member.replica] = member.host;
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
        return;
    }
    links_->ask(message.from ? Asker::kMembers : Asker::kClient, homes_.at(message.to), message);
}

void Volume::Driver::on_asked(const Message& question) {
    if (question.record) learn_homes(*question.record);
    messages_.push(Message(question));
    pump();
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

void Volume::Driver::close(ReplicaId replica) {
    if (elsewhere(replica)) links_->close_client(homes_.at(replica));
}

void Volume::Driver::ask_authority() { io::spawn(background_, read_record()); }

io::Task<void> Volume::Driver::read_record() {
    const auto record = co_await authority_->current(config_.id);
    if (!record || !*record) co_return;
    learn_homes(**record);
    step([&] {
        client_->set_record(**record, false);
        // A member whose primary died before it was told is one all the same.
        for (const auto& own : hosts_) own->node.on_current(&**record);
    });
}

}  // namespace ublkd::volume
