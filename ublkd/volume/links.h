// The connections of one volume to other hosts, as its driver needs them: questions out, their
// answers in, and the other way round. A host asks another one over one connection for its members
// and over one for its client (docs/peer-protocol.md); they are made when something is asked first.
//
// What the core is owed (ublkd/replication/node.h): each question of a node gets one answer, a
// failed one where its connection is gone; a question's memory is used until then and no longer; a
// payload that came stays until its question is answered here; who asked and is gone is told of.
//
// Owner: the driver, on the volume's reactor. Nothing is told from inside of a call but accept().
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "ublkd/io/buffer_pool.h"
#include "ublkd/io/reactor.h"
#include "ublkd/io/sync.h"
#include "ublkd/peer/connection.h"
#include "ublkd/peer/greeting.h"
#include "ublkd/replication/message.h"
#include "ublkd/replication/slab.h"
#include "ublkd/volume/volume_types.h"

namespace ublkd::volume {

/// Who asks over a connection.
enum class Asker : std::uint8_t { kMembers, kClient };

struct LinksConfig {
    peer::Hello own;  // of this host and volume; `attachment` is the client's
    peer::Limits limits;
    ConnectHost connect;
    io::Clock::duration hello_limit = std::chrono::seconds(2);
    io::Clock::duration retry_after = std::chrono::milliseconds(100);  // one that failed
};

class LinkUser {
  public:
    virtual ~LinkUser() = default;
    /// A question or a word of `host`. `route` is set where an answer is owed. False: it may not
    /// say that; its connection ends.
    virtual bool on_asked(HostId host, const replication::Message& question) = 0;
    /// The answer to what was asked here.
    virtual void on_answered(const replication::Message& answer) = 0;
    /// The connection over which `asker` of this host asked `host` is gone, and what a client had
    /// asked over it gets no answer.
    virtual void on_host_lost(Asker asker, HostId host) = 0;
    /// Node::on_asker_gone.
    virtual bool on_asker_gone(ReplicaId node, std::uint64_t route) = 0;
};

class Links {
  public:
    Links(io::Reactor* reactor, io::BufferPool* buffers, LinksConfig config, LinkUser* user);
    Links(const Links&) = delete;
    Links& operator=(const Links&) = delete;
    ~Links();

    /// A connection that another host has made, after the hellos.
    void accept(io::Socket socket, peer::Greeted greeted);
    /// How many of them are there.
    unsigned accepted() const;
    void ask(Asker asker, HostId host, const replication::Message& question);
    /// A kPing to the client of message.attachment on whatever host.
    void ask_client(const replication::Message& ping);
    /// Who asks as this host's client from now on; its connections are closed.
    void set_attachment(AttachmentId attachment);
    /// To a question with a route. Dropped where who asked is gone.
    void answer(const replication::Message& answer);
    /// Client::close: nothing that the client asked there is answered, and its memory is used no
    /// more.
    void close_client(HostId host);
    io::Task<void> stop();

  private:
    struct Wire;
    /// A question of another host, until it is answered; a kHold, until it is over.
    struct Asked {
        std::uint64_t token = 0;  // its route
        std::uint64_t wire = 0;   // its id
        ReplicaId node;
        replication::OpKind kind{};      // the core answers by what it made of it
        std::uint64_t client_token = 0;  // of a request
        bool held = false;               // a kHold that was answered
        peer::Payload payload{};
        io::Buffer into{};  // of a read or fetch
    };
    using Key = std::pair<Asker, HostId>;

    void end_older_than(const Wire& wire);
    Wire& wire_to(Asker asker, HostId host);
    Wire* find(std::uint64_t wire) const;
    io::Task<void> run(Wire* wire);
    io::Task<void> connect(Wire* wire);
    io::Task<Result<peer::Greeted>> meet(Wire* wire);
    void take_answer(Wire* wire, const replication::Message& message);
    void take(Wire* wire, const replication::Message& message, peer::Payload payload);
    void ask_user(Wire* wire, const replication::Message& question);
    io::Task<void> take_read(std::uint64_t wire, replication::Message question);
    void ended(Wire* wire);

    io::Reactor* reactor_;
    io::BufferPool* buffers_;
    LinksConfig config_;
    LinkUser* user_;
    std::map<Key, Wire*> current_;  // those over which this host asks
    std::map<Key, io::Clock::time_point> not_before_;
    std::vector<std::unique_ptr<Wire>> wires_;
    std::uint64_t wire_ids_ = 0;
    replication::Slab<Asked, 5> asked_;
    io::Gate gate_;
    bool stopping_ = false;
};

}  // namespace ublkd::volume
