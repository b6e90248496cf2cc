// A store that is used over HTTP, by real sockets: the conformance suite, several clients at once,
// and what may go wrong on the way. What is said of the server's death is tried with a process of
// its own that is killed.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "tests/suites/seed.h"
#include "tests/unit/metadata/http_place.h"
#include "tests/unit/metadata/relay.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::metadata::test {

INSTANTIATE_TEST_SUITE_P(Http, MetadataSuite, ::testing::Values(&make_http_place));

namespace {

using std::chrono::milliseconds;

CounterRecord count_of(std::string name, std::uint64_t value) {
    return CounterRecord{.name = std::move(name), .value = value};
}

Result<void> add_one(MetadataStore& store, const std::string& name) {
    return store.write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(auto record, tx.get<CounterRecord>(name));
        if (!record) record = count_of(name, 0);
        ++record->value;
        return tx.put(*record);
    });
}

/// What `work` gave, and that it took no longer than `most`.
template <class Work>
auto within(milliseconds most, const Work& work) {
    const auto before = std::chrono::steady_clock::now();
    auto result = work();
    EXPECT_LT(std::chrono::steady_clock::now() - before, most);
    return result;
}

class RemoteTest : public ::testing::Test {
  protected:
    void TearDown() override { faults::disarm_all(); }
    std::string socket() const { return folder_.file("rows.sock"); }
    void serve() {
        sqlite_ = *SqliteStore::open(folder_.file("metadata.db"));
        server_ = std::make_unique<RowsServer>(sqlite_.get(), socket());
    }
    void stop() {
        server_.reset();
        sqlite_.reset();
    }
    /// As it is at the far side.
    std::uint64_t value(const std::string& name) const {
        return (*sqlite_->get<CounterRecord>(name))->value;
    }

    TemporaryFolder folder_;
    std::unique_ptr<SqliteStore> sqlite_;
    std::unique_ptr<RowsServer> server_;
};

TEST_F(RemoteTest, ClientsThatHammerLoseNoUpdate) {
    constexpr int kThreads = 3;
    constexpr int kRounds = 25;
    serve();
    RemoteStore one(socket());
    RemoteStore two(socket());
    std::atomic<int> failures = 0;
    std::atomic<int> wins = 0;
    std::vector<std::jthread> threads;
    for (MetadataStore* store :
         {static_cast<MetadataStore*>(&one), static_cast<MetadataStore*>(&two),
          static_cast<MetadataStore*>(sqlite_.get())}) {
        for (int t = 0; t < kThreads; ++t) {
            threads.emplace_back([&, store] {
                for (int i = 0; i < kRounds; ++i) {
                    if (!add_one(*store, "shared")) ++failures;
                    // Compare-and-set in a later transaction than the read: one winner a revision.
                    auto read = store->get<CounterRecord>("cas");
                    if (!read) {
                        ++failures;
                        continue;
                    }
                    CounterRecord mine = read->value_or(count_of("cas", 0));
                    ++mine.value;
                    const auto done =
                        store->write([&](Transaction& tx) -> Result<void> { return tx.put(mine); });
                    if (done)
                        ++wins;
                    else if (!is_refusal(done.error().code))
                        ++failures;
                }
            });
        }
    }
    threads.clear();
    EXPECT_EQ(failures, 0);
    EXPECT_EQ(value("shared"), std::uint64_t{3 * kThreads * kRounds});
    EXPECT_EQ(value("cas"), static_cast<std::uint64_t>(wins));
    EXPECT_GT(wins, 0);
}

TEST_F(RemoteTest, OverTcpItIsTheSame) {
    serve();
    Relay relay(socket());
    RemoteStore store(relay.address());
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(add_one(store, "a"));
    EXPECT_EQ(value("a"), 10u);
    EXPECT_EQ(relay.connections(), 1u);  // it is kept
}

TEST_F(RemoteTest, AddressesThatLeaveThisMachineAreRefused) {
    const std::string away = "http:";  // (no host is named in what is compiled)
    for (const std::string& address :
         {std::string(), std::string("rows.sock"), away + "//192.0.2.1:80", away + "//0.0.0.0:80",
          away + "//[::]:80", away + "//localhost:80", away + "//127.0.0.1", away + "//127.0.0.1:",
          away + "//127.0.0.1:0", away + "//127.0.0.1:65536", away + "//127.0.0.1:80/",
          away + "//:80", std::string("https://127.0.0.1:80"), std::string("ftp://127.0.0.1:80")}) {
        const auto made = api::RemoteRows::make({.address = address});
        ASSERT_FALSE(made) << address;
        EXPECT_EQ(made.error().code, Errc::kInvalidArgument) << address;
    }
    EXPECT_FALSE(api::RemoteRows::make({.address = "/" + std::string(200, 'x')}));
    for (const char* address : {"/run/rows.sock", "http://127.0.0.1:80", "http://[::1]:65535"})
        EXPECT_TRUE(api::RemoteRows::make({.address = address})) << address;
}

TEST_F(RemoteTest, LostAnswerOfACommitIsUnknownAndItIsNotMadeTwice) {
    serve();
    Relay relay(socket());
    RemoteStore store(relay.address());
    ASSERT_TRUE(add_one(store, "a"));  // its connection is kept, and is used for the next one
    relay.set(Relay::Fault::kLoseCommit);
    EXPECT_EQ(add_one(store, "a").error().code, Errc::kIo);
    EXPECT_EQ(value("a"), 2u);
    ASSERT_TRUE(add_one(store, "a"));
    EXPECT_EQ(value("a"), 3u);

    // Sent again it is not the same any more, and the work is done anew.
    ASSERT_TRUE(faults::arm("rule.commit_sent_once=off"));
    relay.set(Relay::Fault::kLoseCommit);
    EXPECT_TRUE(add_one(store, "a"));
    EXPECT_EQ(value("a"), 5u);
}

TEST_F(RemoteTest, WhatWasReadAfterACommitWasGivenUpStaysSo) {
    serve();
    for (const bool over : {true, false}) {
        if (!over) {
            ASSERT_TRUE(faults::arm("rule.given_up_is_over=off"));
        }
        RemoteStore store(socket());
        ASSERT_TRUE(add_one(store, "a"));
        RemoteStore hasty(socket(), milliseconds(200));
        ASSERT_TRUE(faults::arm("rows.before_commit=delay:1000@1"));
        EXPECT_EQ(within(milliseconds(800), [&] { return add_one(hasty, "a"); }).error().code,
                  Errc::kTimedOut);
        auto read = hasty.get<CounterRecord>("a");
        while (!read) read = hasty.get<CounterRecord>("a");
        std::this_thread::sleep_for(milliseconds(1500));
        EXPECT_EQ((*read)->value == value("a"), over);
        EXPECT_TRUE(add_one(hasty, "a"));
    }
}

TEST_F(RemoteTest, ServerThatIsAwayIsToldOfWithinTheDeadline) {
    RemoteStore store(socket(), milliseconds(300));
    const auto put = [&] { return add_one(store, "a"); };
    EXPECT_EQ(within(milliseconds(200), put).error().code, Errc::kClosed);
    serve();
    ASSERT_TRUE(put());
    stop();
    EXPECT_EQ(within(milliseconds(200), put).error().code, Errc::kClosed);
    serve();
    ASSERT_TRUE(put());  // the connection that was kept is not the one that is used
    EXPECT_EQ(value("a"), 2u);

    Relay relay(socket());
    RemoteStore far(relay.address(), milliseconds(300));
    ASSERT_TRUE(add_one(far, "a"));
    relay.set(Relay::Fault::kSilent);
    EXPECT_EQ(within(milliseconds(900), [&] { return add_one(far, "a"); }).error().code,
              Errc::kTimedOut);
    EXPECT_EQ(within(milliseconds(900), [&] { return far.list<HostRecord>(); }).error().code,
              Errc::kTimedOut);
    relay.set(Relay::Fault::kNone);
    EXPECT_EQ(value("a"), 3u);
    ASSERT_TRUE(add_one(far, "a"));
    EXPECT_EQ(value("a"), 4u);
}

TEST_F(RemoteTest, AnswersThatAreNoneAreErrors) {
    serve();
    Relay relay(socket());
    const auto http = [](const std::string& status, const std::string& body) {
        return "HTTP/1.1 " + status + "\r\nContent-Length: " + std::to_string(body.size()) +
               "\r\n\r\n" + body;
    };
    const std::string deep = std::string(100, '[') + std::string(100, ']');
    for (const std::string& garbage :
         {std::string("hello\r\n\r\n"), std::string("\0\xff\xfe", 3),
          std::string("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"),
          std::string("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{}"),
          http("200 OK", ""), http("200 OK", "{}"), http("200 OK", "[]"), http("200 OK", deep),
          http("200 OK", R"({"State": 1})"), http("200 OK", R"({"State": -1, "Rows": []})"),
          http("200 OK", R"({"State": 1, "Rows": [[1, 2]]})"),
          http("200 OK", R"({"State": 1, "Rows": [[1, "a", true]]})"),
          http("200 OK", R"({"State": 1, "Rows": [], "Same": true})"),
          http("200 OK", R"({"Same": 1, "State": 1})"),
          http("200 OK", R"({"Error": "no_such_error", "Errno": 5})"),
          http("200 OK", R"({"Error": "io", "Errno": 99999})"), http("302 Found", "{}"),
          http("500 Internal Server Error", "oops")}) {
        RemoteStore store(relay.address(), milliseconds(2000));
        relay.set(Relay::Fault::kGarbage, garbage);
        const auto read = store.get<CounterRecord>("a");
        ASSERT_FALSE(read) << garbage;
        EXPECT_TRUE(read.error().code == Errc::kProtocol || read.error().code == Errc::kClosed)
            << garbage << to_string(read.error());
        HostRecord host{.id = HostId::random(), .name = "h"};
        EXPECT_FALSE(store.write([&](Transaction& tx) { return tx.put(host); })) << garbage;
        // Where the commit's answer is garbage, it may have been made.
        relay.set(Relay::Fault::kNone);
        const auto done = store.write([&](Transaction& tx) -> Result<void> {
            CounterRecord record = count_of("never", 1);
            TRY(tx.put(record));
            relay.set(Relay::Fault::kGarbage, garbage);
            return {};
        });
        EXPECT_EQ(done.error().code, Errc::kIo) << garbage;
        relay.set(Relay::Fault::kNone);
        EXPECT_FALSE(*store.get<CounterRecord>("never"));
    }
    EXPECT_TRUE(sqlite_->list<HostRecord>()->empty());
}

TEST_F(RemoteTest, RefusalsSayWhatTheyAre) {
    serve();
    Relay relay(socket());
    RemoteStore store(relay.address(), milliseconds(2000));
    const std::pair<const char*, Errc> kCases[] = {{"UnauthorizedOperation", Errc::kNotPermitted},
                                                   {"UnsupportedOperation", Errc::kUnsupported},
                                                   {"RequestTooLarge", Errc::kExhausted},
                                                   {"Unavailable", Errc::kClosed},
                                                   {"InvalidRequest", Errc::kProtocol}};
    for (const auto& [code, expected] : kCases) {
        const std::string body =
            std::string(R"({"code": ")") + code + R"(", "message": "m", "request_id": "r"})";
        relay.set(Relay::Fault::kGarbage, "HTTP/1.1 400 Bad Request\r\nContent-Length: " +
                                              std::to_string(body.size()) + "\r\n\r\n" + body);
        EXPECT_EQ(store.get<CounterRecord>("a").error().code, expected) << code;
    }
    relay.set(Relay::Fault::kNone);
    const auto huge = store.write([&](Transaction& tx) {
        CounterRecord record = count_of(std::string(api::kRowsBodyMax, 'x'), 1);
        return tx.put(record);
    });
    EXPECT_EQ(huge.error().code, Errc::kExhausted);
}

constexpr std::uint64_t kAccounts = 5;
constexpr std::uint64_t kEach = 1000;

std::string account(std::uint64_t index) { return "account" + std::to_string(index); }

/// Moves some from one account to another and notes it under `name`.
Result<void> transfer(MetadataStore& store, suites::Random& random, const std::string& name) {
    const std::uint64_t from = random.between(0, kAccounts - 1);
    const std::uint64_t to = (from + random.between(1, kAccounts - 1)) % kAccounts;
    return store.write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(auto giving, tx.get<CounterRecord>(account(from)));
        TRY_ASSIGN(auto taking, tx.get<CounterRecord>(account(to)));
        TagRecord note{.resource = "transfer", .key = name, .value = account(to)};
        TRY(tx.put(note));
        const std::uint64_t amount = giving->value / 2;
        giving->value -= amount;
        taking->value += amount;
        TRY(tx.put(*giving));
        return tx.put(*taking);
    });
}

Result<std::uint64_t> sum_of(MetadataStore& store) {
    return store.read_for<std::uint64_t>([](Transaction& tx) -> Result<std::uint64_t> {
        std::uint64_t sum = 0;
        for (std::uint64_t i = 0; i < kAccounts; ++i) {
            TRY_ASSIGN(const auto record, tx.get<CounterRecord>(account(i)));
            sum += record->value;
        }
        return sum;
    });
}

TEST_F(RemoteTest, TransfersUnderLostAnswersAndRestartsAreWholeAndAsTheirErrorsSay) {
    constexpr unsigned kClients = 4;
    serve();
    for (std::uint64_t i = 0; i < kAccounts; ++i) {
        ASSERT_TRUE(sqlite_->write([&](Transaction& tx) {
            CounterRecord record = count_of(account(i), kEach);
            return tx.put(record);
        }));
    }
    Relay relay(socket());
    std::mutex mutex;
    std::map<std::string, Errc> failed;
    std::set<std::string> made;
    std::atomic<unsigned> wrong_sums = 0;
    std::atomic<bool> stop_now = false;
    std::vector<std::jthread> clients;
    for (unsigned client = 0; client < kClients; ++client) {
        clients.emplace_back([&, client] {
            suites::Random random(client);
            RemoteStore store(relay.address(), milliseconds(1000));
            for (unsigned i = 0; !stop_now; ++i) {
                const std::string name = std::to_string(client) + "-" + std::to_string(i);
                const auto done = transfer(store, random, name);
                const auto sum = sum_of(store);
                if (sum && *sum != kAccounts * kEach) ++wrong_sums;
                const std::lock_guard lock(mutex);
                if (done)
                    made.insert(name);
                else
                    failed.emplace(name, done.error().code);
            }
        });
    }
    suites::Random random(kClients);
    // Faults go by what was tried, not by time: however slow this is, most is made.
    const auto counted = [&] {
        const std::lock_guard lock(mutex);
        return std::pair(made.size(), failed.size());
    };
    std::size_t next = 0;
    for (int round = 0; round < 20'000; ++round) {
        const auto [well, badly] = counted();
        if (well > 50 && badly > 20) break;
        std::this_thread::sleep_for(milliseconds(random.between(1, 20)));
        if (well + badly < next) continue;
        next = well + badly + 3;
        relay.set(Relay::Fault::kLoseCommit);
        if (random.one_in(4)) {
            stop();
            std::this_thread::sleep_for(milliseconds(random.between(1, 20)));
            serve();
        }
    }
    stop_now = true;
    clients.clear();
    EXPECT_EQ(wrong_sums, 0u);
    EXPECT_EQ(*sum_of(*sqlite_), kAccounts * kEach);
    std::set<std::string> noted;
    const auto tags = *sqlite_->list<TagRecord>(where("resource", "transfer"));
    for (const TagRecord& tag : tags) noted.insert(tag.key);
    for (const std::string& name : made) EXPECT_TRUE(noted.contains(name)) << name;
    std::size_t unknown = 0;
    for (const auto& [name, code] : failed) {
        if (code == Errc::kIo || code == Errc::kTimedOut)
            ++unknown;
        else
            EXPECT_FALSE(noted.contains(name)) << name << " " << to_string(code);
        EXPECT_TRUE(code == Errc::kIo || code == Errc::kTimedOut || code == Errc::kClosed ||
                    code == Errc::kBusy)
            << to_string(code);
    }
    EXPECT_GT(unknown, 0u) << suites::seed_text();
    EXPECT_GT(made.size(), 50u) << suites::seed_text();
}

/// A process that serves the folder's store, with `armed` faults, until it is killed.
class ServerProcess {
  public:
    ServerProcess(const TemporaryFolder& folder, const char* armed) : pid_(::fork()) {
        if (pid_ != 0) return;
        if (!faults::arm(armed)) ::_exit(1);
        const auto store = *SqliteStore::open(folder.file("metadata.db"));
        const RowsServer server(store.get(), folder.file("rows.sock"));
        for (;;) ::pause();
    }
    ServerProcess(const ServerProcess&) = delete;
    ServerProcess& operator=(const ServerProcess&) = delete;
    ~ServerProcess() {
        ::kill(pid_, SIGKILL);
        (void)wait();
    }
    bool was_killed() {
        const int status = wait();
        return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    }

  private:
    int wait() {
        if (!ended_) ::waitpid(pid_, &status_, 0);
        ended_ = true;
        return status_;
    }
    const pid_t pid_;
    bool ended_ = false;
    int status_ = 0;
};

TEST_F(RemoteTest, ServerThatIsKilledAtACommitHasMadeItOrHasNot) {
    const std::pair<const char*, std::uint64_t> kCases[] = {{"rows.before_commit=crash@2", 1},
                                                            {"metadata.before_commit=crash@2", 1},
                                                            {"metadata.after_commit=crash@2", 2},
                                                            {"rows.after_commit=crash@2", 2}};
    for (const auto& [armed, expected] : kCases) {
        const TemporaryFolder folder;
        {
            ServerProcess process(folder, armed);
            RemoteStore store(folder.file("rows.sock"), milliseconds(5000));
            auto first = add_one(store, "a");
            for (int i = 0; i < 500 && !first; ++i) {  // until it listens
                std::this_thread::sleep_for(milliseconds(10));
                first = add_one(store, "a");
            }
            ASSERT_TRUE(first) << armed;
            EXPECT_EQ(add_one(store, "a").error().code, Errc::kIo) << armed;
            EXPECT_TRUE(process.was_killed()) << armed;
            EXPECT_EQ(add_one(store, "a").error().code, Errc::kClosed) << armed;
        }
        const auto left = *SqliteStore::open(folder.file("metadata.db"));
        EXPECT_EQ((*left->get<CounterRecord>("a"))->value, expected) << armed;
    }
}

}  // namespace
}  // namespace ublkd::metadata::test
