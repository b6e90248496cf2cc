#include "ublkd/volume/links.h"

#include <algorithm>
#include <utility>

#include "ublkd/base/check.h"
#include "ublkd/base/log.h"
#include "ublkd/replication/questions.h"

namespace ublkd::volume {

using replication::Message;
using replication::MessageType;
using replication::OpKind;

namespace {

/// A question until its answer has come. The token on the wire is this one's, since tokens of the
/// core are its asker's alone, and many questions have none.
struct Question {
    std::uint64_t token = 0;
    Message message;
};

bool is_asked(MessageType type) {
    return type == MessageType::kRequest || type == MessageType::kFailover ||
           replication::answer_of(type).has_value();
}

/// Whether `answer` may come to `question`.
bool answers(const Message& answer, const Message& question) {
    if (question.type == MessageType::kRequest)
        return (answer.type == MessageType::kAnswer || answer.type == MessageType::kMoved) &&
               answer.kind == question.kind;
    if (question.type == MessageType::kFailover) return answer.type == MessageType::kMoved;
    // What is noted of a range goes with its content, or the core takes it for nothing.
    if (question.type == MessageType::kFetch && question.check && !answer.failed && !answer.ids)
        return false;
    return replication::answer_of(question.type) == answer.type;
}

}  // namespace

/// One connection, from its making to its end.
struct Links::Wire final : peer::Receiver {
    Links* links = nullptr;
    std::uint64_t id = 0;
    Asker asker{};
    HostId host;
    AttachmentId attachment{};  // of the client that asks over it
    bool ours = false;          // this host asks over it
    io::Socket connecting{};
    std::optional<peer::Connection> connection{};
    std::deque<std::pair<Message, io::Buffer>> waiting{};  // to be sent, in order
    bool sending = false;                                  // send_waiting() runs
    /// But requests: what they asked for may be released by their own tokens.
    replication::Slab<Question, 6> questions{};
    std::unordered_map<std::uint64_t, Message>
        requests{};  // of this host's client, by their tokens
    bool over = false;
    bool told = false;  // of its end: who asked over it

    void on_message(const Message& message, peer::Payload payload) override {
        links->take(this, message, std::move(payload));
    }
    const Message* asked(const Message& answer) {
        if (const Question* const question = questions.find(answer.token))
            return &question->message;
        const auto request = requests.find(answer.token);
        return request == requests.end() ? nullptr : &request->second;
    }
    std::span<std::byte> memory_for(const Message& answer, std::size_t) override {
        const Message* const question = asked(answer);
        return question == nullptr ? std::span<std::byte>{} : question->into;
    }
    void on_end(const Error& why) override {
        log::info("the connection to {} is over: {}", host.to_string(), to_string(why));
        links->ended(this);
    }

    void ask(const Message& question) {
        if (over) return;  // ended() has told, or tells
        Message sent = question;
        if (question.type == MessageType::kRequest) {
            requests.emplace(question.token, question);
        } else if (is_asked(question.type)) {
            Question& made = questions.make();
            made.message = question;
            sent.token = made.token;
        }
        send(sent, {});
    }
    void send(const Message& message, io::Buffer payload) {
        if (over) return;
        if (connection && waiting.empty() && !sending &&
            connection->has_room(peer::Connection::bytes_of(message))) {
            (void)connection->send(message, std::move(payload));  // kClosed: it is told soon
            return;
        }
        waiting.emplace_back(message, std::move(payload));
        if (connection) io::spawn(links->gate_, send_waiting());
    }
    /// What found no room, or was given before the connection was there.
    io::Task<void> send_waiting() {
        if (std::exchange(sending, true)) co_return;
        while (!waiting.empty() && !over) {
            const std::size_t bytes = peer::Connection::bytes_of(waiting.front().first);
            const Result<void> room = co_await connection->wait_for_room(bytes);
            if (!room || over || waiting.empty()) break;
            auto next = std::move(waiting.front());
            waiting.pop_front();
            (void)connection->send(next.first, std::move(next.second));
        }
        sending = false;
    }
};

Links::Links(io::Reactor* reactor, io::BufferPool* buffers, LinksConfig config, LinkUser* user)
    : reactor_(reactor), buffers_(buffers), config_(std::move(config)), user_(user) {}
Links::~Links() { CHECK(wires_.empty(), "stop() comes before the end"); }

// ---- connections

void Links::accept(io::Socket socket, peer::Greeted greeted) {
    if (stopping_) return;
    auto made = std::make_unique<Wire>();
    Wire* const wire = made.get();
    wire->links = this;
    wire->id = ++wire_ids_;
    wire->attachment = greeted.other.attachment;
    wire->asker = wire->attachment ? Asker::kClient : Asker::kMembers;
    wire->host = greeted.other.host;
    end_older_than(*wire);
    wire->connection.emplace(std::move(socket), std::move(greeted), config_.limits, wire, buffers_);
    wires_.push_back(std::move(made));
    io::spawn(gate_, run(wire));
}

/// A host has one of each kind here: by the new one the old one is known to be gone. It is over,
/// and that is told, before anything is heard over the new one: what came late over the old one
/// could be taken for a part of what comes now.
void Links::end_older_than(const Wire& wire) {
    const auto old = std::ranges::find_if(wires_, [&](const auto& known) {
        return !known->ours && !known->over && known->host == wire.host &&
               known->asker == wire.asker && known->attachment == wire.attachment;
    });
    if (old == wires_.end()) return;
    Wire* const older = old->get();
    older->connection->close(peer::Reason::kBusy);
    ended(older);
}

unsigned Links::accepted() const {
    return static_cast<unsigned>(
        std::ranges::count_if(wires_, [](const auto& wire) { return !wire->ours && !wire->over; }));
}

Links::Wire& Links::wire_to(Asker asker, HostId host) {
    Wire*& current = current_[{asker, host}];
    if (current != nullptr) return *current;
    auto made = std::make_unique<Wire>();
    current = made.get();
    current->links = this;
    current->id = ++wire_ids_;
    current->asker = asker;
    current->host = host;
    current->ours = true;
    wires_.push_back(std::move(made));
    io::spawn(gate_, run(current));
    return *current;
}

Links::Wire* Links::find(std::uint64_t wire) const {
    for (const auto& known : wires_) {
        if (known->id == wire) return known.get();
    }
    return nullptr;
}

io::Task<void> Links::run(Wire* wire) {
    co_await reactor_->yield();  // nothing is told from inside of a call
    if (!wire->connection) co_await connect(wire);
    if (wire->connection) {  // also one that is over already: run() cleans up
        io::spawn(gate_, wire->send_waiting());
        const Error why = co_await wire->connection->run();
        (void)why;  // told by on_end()
    }
    ended(wire);
    while (wire->sending) co_await reactor_->yield();
    std::erase_if(wires_, [&](const auto& known) { return known.get() == wire; });
}

io::Task<void> Links::connect(Wire* wire) {
    const Key key{wire->asker, wire->host};
    const io::Clock::time_point not_before = not_before_[key];
    if (not_before > io::Clock::now()) co_await reactor_->sleep_for(not_before - io::Clock::now());
    not_before_[key] = io::Clock::now() + config_.retry_after;
    if (wire->over || stopping_) co_return;
    auto meeting = meet(wire);
    Result<peer::Greeted> greeted = co_await meeting;
    if (!greeted)
        log::info("no connection to {}: {}", wire->host.to_string(), to_string(greeted.error()));
    if (!greeted || wire->over || stopping_) {
        wire->connecting = {};
        co_return;
    }
    wire->connection.emplace(std::move(wire->connecting), std::move(*greeted), config_.limits, wire,
                             buffers_);
}

/// As far as the hellos of both sides.
io::Task<Result<peer::Greeted>> Links::meet(Wire* wire) {
    const io::Clock::time_point limit = io::Clock::now() + config_.hello_limit;
    auto connecting = config_.connect(&wire->connecting, reactor_, wire->host, limit);
    CO_TRY(co_await connecting);
    peer::Hello own = config_.own;
    if (wire->asker == Asker::kMembers) own.attachment = {};
    auto greeting = peer::greet(&wire->connecting, own, limit);
    Result<peer::Greeted> greeted = co_await greeting;
    if (greeted && greeted->other.host != wire->host) {
        peer::refuse(&wire->connecting, peer::Reason::kHost);
        co_return fail(Errc::kProtocol, "another host than was looked for");
    }
    co_return greeted;
}

/// It is over: those who asked over it, and whom it asked, are told.
void Links::ended(Wire* wire) {
    if (std::exchange(wire->over, true)) return;
    wire->waiting.clear();
    if (wire->ours) {
        Wire*& current = current_[{wire->asker, wire->host}];
        if (current == wire) current = nullptr;
    }
    // What it had asked here: what has begun goes on, and its payload stays until then.
    asked_.for_each([&](Asked& asked) {
        if (asked.wire != wire->id) return;
        if (wire->asker == Asker::kMembers) {
            const bool has_memory = asked.payload.is_there() || asked.into;
            if (!has_memory) asked_.free(asked);  // perhaps it is never answered
            return;
        }
        const std::uint64_t token = asked.token;
        const bool over = user_->on_asker_gone(asked.node, token);
        if (over && asked.token == token) asked_.free(asked);  // not answered just now
    });
    std::vector<Message> open;
    wire->questions.for_each([&](Question& question) {
        open.push_back(std::move(question.message));
        wire->questions.free(question);
    });
    wire->requests.clear();
    if (std::exchange(wire->told, true)) return;
    const bool of_nodes = !wire->ours || wire->asker == Asker::kMembers;  // also pings
    for (const Message& question : open) {
        if (of_nodes && replication::answer_of(question.type))
            user_->on_answered(replication::no_answer(question));
    }
    if (wire->ours) user_->on_host_lost(wire->asker, wire->host);
}

void Links::close_client(HostId host) {
    const auto found = current_.find({Asker::kClient, host});
    if (found == current_.end() || found->second == nullptr) return;
    Wire* const wire = std::exchange(found->second, nullptr);
    wire->told = true;
    wire->questions = {};
    wire->requests.clear();
    wire->waiting.clear();
    if (wire->connection) {
        wire->connection->close(peer::Reason::kStopping);
    } else {
        wire->over = true;
        wire->connecting.shutdown();
    }
}

void Links::set_attachment(AttachmentId attachment) {
    config_.own.attachment = attachment;
    std::vector<HostId> hosts;
    for (const auto& [key, wire] : current_) {
        if (key.first == Asker::kClient) hosts.push_back(key.second);
    }
    for (const HostId host : hosts) close_client(host);
}

io::Task<void> Links::stop() {
    stopping_ = true;
    for (const auto& wire : wires_) {
        wire->told = true;
        if (wire->connection) {
            wire->connection->close(peer::Reason::kStopping);
        } else if (wire->connecting.is_open()) {
            wire->connecting.shutdown();
        }
    }
    co_await gate_.close();
}

// ---- messages

void Links::ask(Asker asker, HostId host, const Message& question) {
    if (!stopping_) wire_to(asker, host).ask(question);
}

void Links::ask_client(const Message& ping) {
    for (const auto& wire : wires_) {
        if (wire->ours || wire->over || wire->attachment != ping.attachment) continue;
        wire->ask(ping);
        return;
    }
    user_->on_answered(replication::no_answer(ping));
}

void Links::take_answer(Wire* wire, const Message& message) {
    const Message* const question = wire->asked(message);
    if (question == nullptr || message.to != question->from || !answers(message, *question)) {
        wire->connection->close(peer::Reason::kProtocol);
        return;
    }
    Message answer = message;
    answer.token = question->token;
    if (Question* const asked = wire->questions.find(message.token)) {
        wire->questions.free(*asked);
    } else {
        wire->requests.erase(message.token);
    }
    user_->on_answered(answer);
}

void Links::take(Wire* wire, const Message& message, peer::Payload payload) {
    if (wire->over) return;
    if (replication::is_answer(message.type)) {
        take_answer(wire, message);
        return;
    }
    // Who asks as a client has the attachment that the connection is for, and members have none.
    const bool of_client = message.type == MessageType::kPing || !message.from;
    const bool fits = wire->ours ? message.type == MessageType::kPing
                                 : of_client == (wire->asker == Asker::kClient) &&
                                       (!of_client || message.attachment == wire->attachment);
    if (!fits) {
        wire->connection->close(peer::Reason::kProtocol);
        return;
    }
    if (!is_asked(message.type)) {
        if (message.type == MessageType::kRelease) {
            asked_.for_each([&](Asked& asked) {
                if (asked.held && asked.wire == wire->id && asked.client_token == message.token)
                    asked_.free(asked);
            });
        }
        if (!user_->on_asked(wire->host, message)) wire->connection->close(peer::Reason::kProtocol);
        return;
    }
    const bool reads = message.type == MessageType::kFetch ||
                       (message.type == MessageType::kRequest && message.kind == OpKind::kRead);
    if (reads) {
        io::spawn(gate_, take_read(wire->id, message));
        return;
    }
    Asked& asked = asked_.make();
    asked.wire = wire->id;
    asked.node = message.to;
    asked.kind = message.kind;
    asked.client_token = message.token;
    asked.payload = std::move(payload);
    Message question = message;
    question.route = asked.token;
    ask_user(wire, question);
}

void Links::ask_user(Wire* wire, const Message& question) {
    if (user_->on_asked(wire->host, question)) return;
    if (Asked* const asked = asked_.find(question.route)) asked_.free(*asked);
    wire->connection->close(peer::Reason::kProtocol);
}

/// It may be overtaken by what comes later: nobody who asks waits for an order of the two.
io::Task<void> Links::take_read(std::uint64_t wire, Message question) {
    io::Buffer into = buffers_->try_acquire(question.range.length_bytes);
    if (!into) into = co_await buffers_->acquire(question.range.length_bytes);
    Wire* const there = find(wire);
    if (there == nullptr || there->over) co_return;
    Asked& asked = asked_.make();
    asked.wire = wire;
    asked.node = question.to;
    asked.kind = question.kind;
    asked.into = std::move(into);
    question.route = asked.token;
    question.into = asked.into.span();
    ask_user(there, question);
}

void Links::answer(const Message& answer) {
    Asked* const asked = asked_.find(answer.route);
    if (asked == nullptr) return;
    Wire* const wire = find(asked->wire);
    io::Buffer data = std::move(asked->into);
    Message message = answer;
    message.kind = asked->kind;
    const bool holds = answer.type == MessageType::kAnswer && asked->kind == OpKind::kHold &&
                       !answer.failed && wire != nullptr && !wire->over;
    if (holds) {
        asked->held = true;
    } else {
        asked_.free(*asked);
    }
    if (wire == nullptr) return;
    if (data && !message.failed) message.data = data.span();
    wire->send(message, std::move(data));
}

}  // namespace ublkd::volume
