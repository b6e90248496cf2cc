// Goal: one volume on several hosts: members and clients that speak over real sockets serve, fail
// over and come back as the core says. Method: each host is a Volume with its own replicas and its
// own listener on loopback; all share a reactor and an authority.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <random>

#include "tests/sim/history.h"
#include "tests/unit/volume/volume_world.h"
#include "ublkd/base/bytes.h"
#include "ublkd/base/fd.h"
#include "ublkd/peer/connection.h"
#include "ublkd/peer/greeting.h"

namespace ublkd::test {
namespace {

constexpr ClusterId kCluster{9};

class Hosts {
  public:
    /// `attached`: of the hosts, the first so many; all of them.
    explicit Hosts(std::size_t count, std::size_t attached = SIZE_MAX) : world_(count) {
        for (std::size_t i = 0; i < count; ++i) {
            world_.config.replicas[i].member.host = HostId(i + 1);
            places_.push_back(world_.config.replicas[i]);
            auto listener = io::Listener::listen_tcp(world_.reactor(), "127.0.0.1", 0);
            CHECK(listener.has_value(), "a listener on loopback");
            hosts_.push_back(std::make_unique<Host>(std::move(*listener)));
        }
        CHECK(world_.create().has_value(), "a volume");
        auto record = *world_.authority->load();
        for (std::size_t i = 0; i < std::min(count, attached); ++i)
            record.attachments.push_back(attachment(i));
        world_.authority->save(record);
        for (std::size_t i = 0; i < count; ++i) io::spawn(accepting_, serve(i));
    }
    ~Hosts() {
        for (std::size_t i = 0; i < hosts_.size(); ++i) {
            if (hosts_[i]->volume) (void)stop(i);
            hosts_[i]->listener.shutdown();
        }
        world_.run(accepting_.close());
    }

    static AttachmentId attachment(std::size_t host) { return AttachmentId(host + 101); }

    Result<void> start(std::size_t host) {
        volume::VolumeConfig config = world_.config;
        config.replicas = {places_[host]};
        config.cluster =
            volume::ClusterConfig{.id = kCluster,
                                  .self = HostId(host + 1),
                                  .attachment = attachment(host),
                                  .connect = [this](io::Socket* into, io::Reactor*, HostId other,
                                                    auto) { return connect(into, other); },
                                  .health_ms = 300,
                                  .deadline_ms = 200};
        auto started = world_.run(volume::Volume::start(&world_.reactor(), world_.buffers(), config,
                                                        world_.authority.get(), &world_));
        if (!started) return fail(started.error());
        hosts_[host]->volume = std::move(*started);
        return {};
    }
    io::Task<Result<void>> connect(io::Socket* into, HostId other) {
        const Host& there = *hosts_[other.value() - 1];
        if (!there.volume) co_return fail(Errc::kClosed, "the host is down");
        CO_TRY_ASSIGN(
            *into, io::Socket::connect_tcp(world_.reactor(), "127.0.0.1", there.listener.port()));
        co_return Result<void>{};
    }
    /// Secondaries first: the primary waits for them.
    void start_all() {
        for (std::size_t i = hosts_.size(); i > 0; --i) {
            const auto started = start(i - 1);
            ASSERT_TRUE(started) << to_string(started.error());
        }
    }
    Result<void> stop(std::size_t host) {
        const auto result = world_.run(hosts_[host]->volume->stop());
        hosts_[host]->volume.reset();
        return result;
    }

    Result<void> write(std::size_t host, std::uint64_t offset, std::byte value,
                       std::size_t bytes = kPageBytes) {
        auto buffer = world_.buffer_of(bytes);
        std::ranges::fill(buffer.span(), value);
        return world_.run(hosts_[host]->volume->write(offset, buffer.span(), {}));
    }
    void retire() { world_.authority->retired = true; }
    Result<void> set_attachments(std::size_t host, std::vector<AttachmentId> wanted,
                                 std::vector<AttachmentId> taken_off = {},
                                 std::chrono::milliseconds limit = std::chrono::seconds(5)) {
        return world_.run(hosts_[host]->volume->set_attachments(
            std::move(wanted), std::move(taken_off), io::Clock::now() + limit));
    }
    /// nullopt: it failed, or the bytes differ.
    std::optional<std::byte> read(std::size_t host, std::uint64_t offset,
                                  std::size_t bytes = kPageBytes) {
        auto buffer = world_.buffer_of(bytes);
        if (!world_.run(hosts_[host]->volume->read(offset, buffer.span()))) return std::nullopt;
        for (const std::byte value : buffer.span()) {
            if (value != buffer.span()[0]) return std::nullopt;
        }
        return buffer.span()[0];
    }
    /// What the page begins with.
    std::uint64_t number_in(std::size_t host, std::uint64_t offset) {
        auto buffer = world_.buffer_of(kPageBytes);
        EXPECT_TRUE(world_.run(hosts_[host]->volume->read(offset, buffer.span())));
        return load_le<std::uint64_t>(buffer.span().data());
    }
    /// One of the connections that were made breaks.
    void cut(std::mt19937_64& random) {
        if (connections_.empty()) return;
        const std::size_t which = random() % connections_.size();
        (void)shutdown(connections_[which].get(), SHUT_RDWR);
        connections_.erase(connections_.begin() + static_cast<std::ptrdiff_t>(which));
    }
    /// Who is no member is brought in again by whoever is primary.
    io::Task<void> bring_back() {
        const replication::Membership now = record();
        const std::size_t primary = primary_of(now);
        for (const volume::ReplicaPlace& place : places_) {
            if (now.has(place.member.replica)) continue;
            auto adding = hosts_[primary]->volume->add_replica(place);
            (void)co_await adding;
        }
    }
    bool all_members_there() {
        const replication::Membership now = record();
        return now.members.size() == places_.size() &&
               at(primary_of(now)).status().state == volume::VolumeState::kOk;
    }
    std::size_t primary_of(const replication::Membership& record) const {
        std::size_t primary = 0;
        while (places_[primary].member.replica != record.primary) ++primary;
        return primary;
    }
    replication::Membership record() const { return *world_.authority->load(); }
    io::Socket socket_to(std::size_t host) {
        auto socket =
            io::Socket::connect_tcp(world_.reactor(), "127.0.0.1", hosts_[host]->listener.port());
        CHECK(socket.has_value(), "a connection on loopback");
        return std::move(*socket);
    }
    volume::Volume& at(std::size_t host) { return *hosts_[host]->volume; }
    const volume::ReplicaPlace& place(std::size_t host) const { return places_[host]; }
    World& world() { return world_; }

  private:
    struct Host {
        explicit Host(io::Listener from) : listener(std::move(from)) {}
        io::Listener listener;
        std::unique_ptr<volume::Volume> volume;
    };
    io::Task<void> serve(std::size_t host) {
        for (;;) {
            auto socket = co_await hosts_[host]->listener.accept();
            if (!socket) co_return;
            const auto limit = io::Clock::now() + std::chrono::seconds(2);
            auto greeted = co_await peer::hear_hello(&*socket, limit);
            if (!greeted || !hosts_[host]->volume) continue;
            const peer::Hello own{.cluster = kCluster,
                                  .host = HostId(host + 1),
                                  .volume = world_.config.id,
                                  .boot_id = {std::byte{1}},
                                  .attachment = {}};
            const auto agreed = co_await peer::answer_hello(&*socket, &*greeted, own, limit);
            if (!agreed || !hosts_[host]->volume) continue;
            connections_.emplace_back(dup(socket->fd()));
            hosts_[host]->volume->accept(std::move(*socket), std::move(*greeted));
        }
    }

    World world_;
    std::vector<volume::ReplicaPlace> places_;
    std::vector<std::unique_ptr<Host>> hosts_;
    std::vector<Fd> connections_;
    io::Gate accepting_;
};

TEST(VolumeHosts, EachSeesWhatTheOtherHasWritten) {
    Hosts hosts(2);
    hosts.start_all();
    ASSERT_TRUE(hosts.write(0, 0, 1_b));
    EXPECT_EQ(hosts.read(1, 0), 1_b);
    ASSERT_TRUE(hosts.write(1, 0, 2_b));
    EXPECT_EQ(hosts.read(0, 0), 2_b);
    ASSERT_TRUE(hosts.write(1, 1 * kMiB, 3_b, 512 * kKiB));
    EXPECT_EQ(hosts.read(0, 1 * kMiB, 512 * kKiB), 3_b);
    ASSERT_TRUE(hosts.world().run(hosts.at(1).flush()));
    EXPECT_EQ(hosts.record().members.size(), 2U);
}

TEST(VolumeHosts, R6_TheOtherOneTakesOverWhereThePrimarysHostIsGone) {
    Hosts hosts(2);
    hosts.start_all();
    ASSERT_TRUE(hosts.write(0, 0, 1_b));
    ASSERT_TRUE(hosts.write(1, 4096, 2_b));
    ASSERT_TRUE(hosts.stop(0));
    EXPECT_EQ(hosts.read(1, 0), 1_b);
    EXPECT_EQ(hosts.read(1, 4096), 2_b);
    ASSERT_TRUE(hosts.write(1, 0, 3_b));
    EXPECT_EQ(hosts.record().primary, hosts.place(1).member.replica);
    EXPECT_EQ(hosts.record().members.size(), 1U);
}

TEST(VolumeHosts, R11_WhoWasAwayComesBackAndIsMadeEqual) {
    Hosts hosts(2);
    hosts.start_all();
    ASSERT_TRUE(hosts.write(0, 0, 1_b));
    ASSERT_TRUE(hosts.stop(1));
    ASSERT_TRUE(hosts.write(0, 0, 2_b));
    EXPECT_EQ(hosts.record().members.size(), 1U);
    ASSERT_TRUE(hosts.start(1));
    EXPECT_EQ(hosts.read(1, 0), 2_b) << "a client without a replica of its own";
    ASSERT_TRUE(hosts.world().run(hosts.at(1).open_replica(hosts.place(1))));
    ASSERT_TRUE(hosts.world().run(hosts.at(0).add_replica(hosts.place(1))));
    ASSERT_TRUE(hosts.world().wait_until(
        [&] { return hosts.at(0).status().state == volume::VolumeState::kOk; }));
    EXPECT_EQ(hosts.record().members.size(), 2U);
    ASSERT_TRUE(hosts.stop(0));
    EXPECT_EQ(hosts.read(1, 0), 2_b) << "from its own replica";
}

TEST(VolumeHosts, ThreeMembersOnThreeHosts) {
    Hosts hosts(3);
    hosts.start_all();
    for (std::size_t i = 0; i < 3; ++i)
        ASSERT_TRUE(hosts.write(i, i * 4096, static_cast<std::byte>(i + 1)));
    for (std::size_t i = 0; i < 3; ++i)
        EXPECT_EQ(hosts.read(2 - i, i * 4096), static_cast<std::byte>(i + 1));
    ASSERT_TRUE(hosts.stop(0));
    for (std::size_t i = 0; i < 3; ++i)
        EXPECT_EQ(hosts.read(2, i * 4096), static_cast<std::byte>(i + 1));
    EXPECT_EQ(hosts.record().members.size(), 2U);
    for (std::size_t i = 0; i < 3; ++i)
        EXPECT_EQ(hosts.read(1, i * 4096), static_cast<std::byte>(i + 1));
}

TEST(VolumeHosts, R15_WhoIsAttachedIsServedAndWhoWasTakenOffIsNot) {
    Hosts hosts(2, 1);
    hosts.start_all();
    ASSERT_TRUE(hosts.write(0, 0, 1_b));
    const auto stranger = hosts.write(1, 0, 2_b);
    ASSERT_FALSE(stranger);
    EXPECT_EQ(stranger.error().code, Errc::kNotPermitted);
    const AttachmentId first = Hosts::attachment(0);
    const AttachmentId second = Hosts::attachment(1);
    const auto by_secondary = hosts.set_attachments(1, {first, second});
    ASSERT_FALSE(by_secondary);
    EXPECT_EQ(by_secondary.error().code, Errc::kBusy);
    const auto twice = hosts.set_attachments(0, {first, first});
    ASSERT_FALSE(twice);
    EXPECT_EQ(twice.error().code, Errc::kInvalidArgument);

    ASSERT_TRUE(hosts.set_attachments(0, {first, second}));
    EXPECT_EQ(hosts.record().attachments.size(), 2U);
    ASSERT_TRUE(hosts.write(1, 0, 3_b));
    EXPECT_EQ(hosts.read(0, 0), 3_b);

    const AttachmentId third(777);
    ASSERT_TRUE(hosts.at(1).set_attachment(third));
    EXPECT_FALSE(hosts.write(1, 0, 9_b)) << "another one than before";
    ASSERT_TRUE(hosts.set_attachments(0, {first, second, third}));
    ASSERT_TRUE(hosts.write(1, 0, 3_b));
    ASSERT_TRUE(hosts.at(1).set_attachment(second));

    ASSERT_TRUE(hosts.set_attachments(0, {second}));
    ASSERT_TRUE(hosts.set_attachments(0, {second}, {first})) << "it is fenced by now";
    const auto taken_off = hosts.write(0, 0, 4_b);
    ASSERT_FALSE(taken_off) << "also where the primary is";
    EXPECT_EQ(taken_off.error().code, Errc::kNotPermitted);
    EXPECT_EQ(hosts.read(1, 0), 3_b);
}

/// Asks over a connection as a client does.
struct Question final : peer::Receiver {
    void on_message(const replication::Message& message, peer::Payload) override {
        answer = message;
        connection->close(peer::Reason::kStopping);
    }
    std::span<std::byte> memory_for(const replication::Message&, std::size_t) override {
        return {};
    }
    void on_end(const Error&) override {}
    std::optional<peer::Connection> connection;
    std::optional<replication::Message> answer;
};

io::Task<void> ask(World* world, io::Socket socket, peer::Hello own, replication::Message message,
                   std::optional<replication::Message>* answer) {
    auto greeting = peer::greet(&socket, own, io::Clock::now() + std::chrono::seconds(2));
    auto greeted = co_await greeting;
    if (!greeted) co_return;
    const peer::Limits limits{.volume = world->config.id, .volume_bytes = world->config.size_bytes};
    Question question;
    question.connection.emplace(std::move(socket), std::move(*greeted), limits, &question,
                                world->buffers());
    (void)question.connection->send(message);
    auto running = question.connection->run();
    (void)co_await running;
    *answer = question.answer;
}

/// All members are here, so that it flushes before it stops: but not behind a proposal for which
/// the authority has no record any more. (The flush is the client's first request, which the
/// primary answers with its health: R6.)
TEST(VolumeHosts, ADeletedVolumeStopsWhileItsProposalIsDeclined) {
    Hosts hosts(1);
    ASSERT_NO_FATAL_FAILURE(hosts.start_all());
    hosts.retire();
    const auto set = hosts.set_attachments(0, {}, {}, std::chrono::milliseconds(100));
    ASSERT_FALSE(set);
    EXPECT_EQ(set.error().code, Errc::kTimedOut);
    EXPECT_TRUE(hosts.stop(0));
}

TEST(VolumeHosts, WhoAsksForAReplicaThatIsNotThereIsTold) {
    using replication::MessageType;
    Hosts hosts(2);
    hosts.start_all();
    const ReplicaId nobody(12345);
    replication::Message message;
    message.volume = hosts.world().config.id;
    message.to = nobody;
    message.number = 1;
    message.token = 7;
    peer::Hello own{.cluster = kCluster,
                    .host = HostId(77),
                    .volume = hosts.world().config.id,
                    .boot_id = {std::byte{1}},
                    .attachment = AttachmentId(77)};
    const auto answer_to = [&](const replication::Message& asked) {
        std::optional<replication::Message> answer;
        hosts.world().run(ask(&hosts.world(), hosts.socket_to(0), own, asked, &answer));
        return answer;
    };
    message.attachment = own.attachment;
    for (const auto type : {MessageType::kRequest, MessageType::kFailover}) {
        message.type = type;
        message.kind = replication::OpKind::kFlush;
        if (type == MessageType::kFailover) message.kind = {};
        const auto moved = answer_to(message);
        ASSERT_TRUE(moved);
        EXPECT_EQ(moved->type, MessageType::kMoved);
        EXPECT_EQ(moved->token, 7U);
    }
    message.type = MessageType::kConfirm;
    message.from = ReplicaId(54321);
    message.attachment = own.attachment = {};
    const auto failed = answer_to(message);
    ASSERT_TRUE(failed);
    EXPECT_EQ(failed->type, MessageType::kConfirmed);
    EXPECT_TRUE(failed->failed);
}

/// What guests on all hosts do and see while connections break.
struct Load {
    static constexpr std::size_t kPages = 12;
    explicit Load(Hosts* on) : hosts(on) {}

    io::Task<void> guest(std::size_t host, std::uint64_t seed) {
        std::mt19937_64 random(seed);
        io::Buffer buffer = hosts->world().buffer_of(kPageBytes);
        while (!over) {
            const std::size_t page = random() % kPages;
            const std::uint64_t begin = ++ticks;
            if (random() % 2 == 0) {
                const std::uint64_t value = ++values;
                for (std::size_t at = 0; at < kPageBytes; at += 8)
                    store_le<std::uint64_t>(buffer.span().data() + at, value);
                history.write(page, begin, value, false);
                auto writing = hosts->at(host).write(page * kPageBytes, buffer.span(), {});
                if (co_await writing) {
                    history.end_write(page, value, ++ticks);
                } else {
                    ++failed;
                }
            } else {
                auto reading = hosts->at(host).read(page * kPageBytes, buffer.span());
                if (co_await reading) {
                    history.read(page, begin, ++ticks, value_of(buffer.span()));
                } else {
                    ++failed;
                }
            }
            ++done;
        }
    }
    std::uint64_t value_of(std::span<const std::byte> page) {
        const auto value = load_le<std::uint64_t>(page.data());
        for (std::size_t at = 8; at < kPageBytes; at += 8) {
            if (load_le<std::uint64_t>(page.data() + at) != value) ++torn;
        }
        return value;
    }

    Hosts* hosts;
    sim::History history{kPages};
    std::uint64_t ticks = 0;
    std::uint64_t values = 0;
    std::uint64_t done = 0;
    std::uint64_t failed = 0;
    std::uint64_t torn = 0;
    bool over = false;
};

io::Task<void> cut_and_mend(Hosts* hosts, Load* load, std::uint64_t seed, int cuts) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < cuts; ++i) {
        co_await hosts->world().reactor().sleep_for(std::chrono::milliseconds(5 + random() % 120));
        if (random() % 3 != 0) hosts->cut(random);
        auto bringing = hosts->bring_back();
        co_await bringing;
    }
    load->over = true;
}

TEST(VolumeHosts, ConnectionsThatBreakUnderLoadLoseNothing) {
    const std::uint64_t seed = random_u64();
    SCOPED_TRACE("seed " + std::to_string(seed));
    Hosts hosts(3);
    hosts.start_all();
    Load load(&hosts);
    io::Gate guests;
    for (std::size_t i = 0; i < 9; ++i) io::spawn(guests, load.guest(i % 3, seed + i));
    hosts.world().run(cut_and_mend(&hosts, &load, seed, 60));
    hosts.world().run(guests.close());
    EXPECT_EQ(load.failed, 0U);
    EXPECT_EQ(load.torn, 0U);
    EXPECT_GT(load.done, 500U);
    EXPECT_EQ(load.history.check(), "");
    ASSERT_TRUE(hosts.world().wait_until(
        [&] {
            hosts.world().run(hosts.bring_back());
            return hosts.all_members_there();
        },
        20));
    // From each replica alone.
    std::vector<std::uint64_t> first;
    for (std::size_t page = 0; page < Load::kPages; ++page)
        first.push_back(hosts.number_in(0, page * kPageBytes));
    for (const std::size_t gone : {0UL, 1UL}) {
        ASSERT_TRUE(hosts.stop(gone));
        for (std::size_t page = 0; page < Load::kPages; ++page)
            EXPECT_EQ(hosts.number_in(2, page * kPageBytes), first[page]) << page;
    }
}

}  // namespace
}  // namespace ublkd::test
