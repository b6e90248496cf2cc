// An etcd that dies, hangs, loses its leader, wants certificates and passwords: what was answered
// stays, what was not made is not said to be, and all of it goes on by itself.
#include <csignal>
#include <map>
#include <set>

#include "tests/suites/seed.h"
#include "tests/unit/metadata/etcd_fixture.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::metadata::test {
namespace {

using std::chrono::milliseconds;

Result<void> until_ok(const std::function<Result<void>()>& step) {
    Result<void> done;
    for (int i = 0; i < 1000; ++i) {
        done = step();
        if (done) break;
        std::this_thread::sleep_for(milliseconds(20));
    }
    return done;
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
            sum += record ? record->value : 0;
        }
        return sum;
    });
}

/// Several hosts that transfer while faults go on.
class Transfers {
  public:
    Transfers(const EtcdAccess& access, milliseconds deadline)
        : options_{.access = access, .deadline = deadline} {
        EtcdStore store(options_);
        for (std::uint64_t i = 0; i < kAccounts; ++i) {
            EXPECT_TRUE(store.write([&](Transaction& tx) {
                CounterRecord record = count_of(account(i), kEach);
                return tx.put(record);
            }));
        }
    }

    void start(unsigned hosts) {
        for (unsigned host = 0; host < hosts; ++host)
            threads_.emplace_back([this, host] { run(host); });
    }
    std::size_t made() {
        const std::lock_guard lock(mutex_);
        return made_.size();
    }
    void end_and_judge() {
        stop_ = true;
        threads_.clear();
        EtcdStore store(options_);
        EXPECT_TRUE(until_ok([&]() -> Result<void> {
            TRY_ASSIGN(const auto sum, sum_of(store));
            EXPECT_EQ(sum, kAccounts * kEach);
            return {};
        }));
        EXPECT_EQ(wrong_sums_, 0u);
        std::set<std::string> noted;
        const auto tags = *store.list<TagRecord>(where("resource", "transfer"));
        for (const TagRecord& tag : tags) noted.insert(tag.key);
        for (const std::string& name : made_) EXPECT_TRUE(noted.contains(name)) << name;
        for (const auto& [name, code] : failed_) {
            if (code == Errc::kIo || code == Errc::kTimedOut) continue;
            EXPECT_FALSE(noted.contains(name)) << name << " " << to_string(code);
            EXPECT_TRUE(code == Errc::kClosed || code == Errc::kBusy)
                << name << " " << to_string(code);
        }
    }

  private:
    void run(unsigned host) {
        suites::Random random(host);
        EtcdStore store(options_);
        for (unsigned i = 0; !stop_; ++i) {
            const std::string name = std::to_string(host) + "-" + std::to_string(i);
            const auto done = transfer(store, random, name);
            const auto sum = sum_of(store);
            if (sum && *sum != kAccounts * kEach) ++wrong_sums_;
            {
                const std::lock_guard lock(mutex_);
                if (done)
                    made_.insert(name);
                else
                    failed_.emplace(name, done.error().code);
            }
            if (!done) std::this_thread::sleep_for(milliseconds(5));
        }
    }

    const EtcdOptions options_;
    std::atomic<bool> stop_ = false;
    std::atomic<unsigned> wrong_sums_ = 0;
    std::mutex mutex_;
    std::set<std::string> made_;
    std::map<std::string, Errc> failed_;
    std::vector<std::jthread> threads_;
};

TEST(EtcdFaults, KillsAndStopsInTheMiddleOfCommits) {
    EtcdProcess etcd;
    Transfers transfers(etcd.access(), milliseconds(400));
    transfers.start(3);
    suites::Random random(3);
    for (int round = 0; round < 12; ++round) {
        // What was made, not time, says when.
        const std::size_t next = transfers.made() + 10;
        for (int i = 0; i < 1000 && transfers.made() < next; ++i)
            std::this_thread::sleep_for(milliseconds(10));
        EXPECT_GE(transfers.made(), next);
        if (random.one_in(2)) {
            etcd.kill();
            std::this_thread::sleep_for(milliseconds(random.between(0, 200)));
            etcd.start();
        } else {
            etcd.signal(SIGSTOP);
            std::this_thread::sleep_for(milliseconds(random.between(0, 800)));
            etcd.signal(SIGCONT);
        }
    }
    transfers.end_and_judge();
}

TEST(EtcdFaults, LeaderDiesOrHangsAndTheOthersGoOn) {
    EtcdProcess etcd({.members = 3});
    Transfers transfers(etcd.access(), milliseconds(5'000));
    transfers.start(2);
    for (const bool dies : {true, false}) {
        const std::size_t before = transfers.made() + 10;
        for (int i = 0; i < 1000 && transfers.made() < before; ++i)
            std::this_thread::sleep_for(milliseconds(10));
        const unsigned leader = etcd.leader();
        dies ? etcd.kill(leader) : etcd.signal(SIGSTOP, leader);
        const std::size_t next = transfers.made() + 30;
        for (int i = 0; i < 1500 && transfers.made() < next; ++i)
            std::this_thread::sleep_for(milliseconds(10));
        EXPECT_GE(transfers.made(), next) << (dies ? "without" : "with a hanging") << " leader";
        dies ? etcd.start(leader) : etcd.signal(SIGCONT, leader);
        etcd.wait_until_it_serves(leader);
    }
    transfers.end_and_judge();
}

TEST(EtcdFaults, MinorityServesNothingAndSaysSo) {
    EtcdProcess etcd({.members = 3});
    EtcdStore store({.access = etcd.access(), .deadline = milliseconds(1'000)});
    ASSERT_TRUE(until_ok([&] { return add_one(store, "c"); }));
    etcd.kill(0);
    etcd.kill(1);
    const auto read = store.get<CounterRecord>("c");
    EXPECT_EQ(read.error().code, Errc::kTimedOut);
    EXPECT_FALSE(add_one(store, "c"));
    etcd.start(0);
    EXPECT_TRUE(until_ok([&] { return add_one(store, "c"); }));
}

TEST(EtcdFaults, TlsAndUsers) {
    EtcdProcess etcd({.tls = true});
    EtcdOptions options{.access = etcd.access(), .deadline = milliseconds(5'000)};
    ASSERT_TRUE(EtcdStore(options).get<CounterRecord>("c"));
    const auto refused = [](const EtcdOptions& given) {
        const auto read = EtcdStore(given).get<CounterRecord>("c");
        EXPECT_FALSE(read);
        return read ? Error{Errc::kIo} : read.error();
    };
    EtcdOptions other = options;
    other.access.certificate = other.access.key = "";
    EXPECT_EQ(refused(other).code, Errc::kNotPermitted);
    other = options;
    other.access.ca = "";  // not one of the system's
    EXPECT_EQ(refused(other).code, Errc::kNotPermitted);
    other = options;
    other.access.user = "ublkd";
    other.access.password = "secret";
    EXPECT_EQ(refused(other).code, Errc::kNotPermitted);  // etcd knows no users yet
    for (const char* command :
         {"user add root:top", "user grant-role root root", "role add ublkd",
          "role grant-permission ublkd --prefix=true readwrite ublkd/", "user add ublkd:secret",
          "user grant-role ublkd ublkd", "user add stranger:secret", "auth enable"})
        etcd.control(command);
    EXPECT_EQ(refused(options).code, Errc::kNotPermitted);
    EtcdStore store(other);
    ASSERT_TRUE(add_one(store, "c"));
    EtcdOptions wrong = other;
    wrong.access.password = "guess";
    EXPECT_STREQ(refused(wrong).where, "etcd refuses this user or password");
    wrong = other;
    wrong.access.user = "stranger";
    EXPECT_STREQ(refused(wrong).where, "etcd's user may not read and write these keys");
    wrong = other;
    wrong.prefix = "other";
    EXPECT_EQ(refused(wrong).code, Errc::kNotPermitted);
    // Its token is not known any more: a new one is asked for.
    etcd.kill();
    etcd.start();
    etcd.wait_until_it_serves();
    EXPECT_TRUE(add_one(store, "c"));
    EXPECT_EQ((*store.get<CounterRecord>("c"))->value, 2u);
    etcd.control("--user root:top user add later:secret");  // the users' revision is a newer one
    EXPECT_TRUE(add_one(store, "c"));
}

TEST(EtcdFaults, TokenThatExpiredIsRenewed) {
    EtcdProcess etcd({.flags = {"--auth-token-ttl=1"}});
    for (const char* command : {"user add root:top", "user grant-role root root", "auth enable"})
        etcd.control(command);
    EtcdOptions options{.access = etcd.access()};
    options.access.user = "root";
    options.access.password = "top";
    EtcdStore store(options);
    EXPECT_TRUE(add_one(store, "c"));
    // One of the same age that nobody uses either (a use makes it last longer) says when.
    const std::string url = options.access.endpoints[0];
    const std::string token =
        run_shell("curl -s " + url +
                  "/v3/auth/authenticate -d '{\"name\": \"root\", \"password\": \"top\"}' | "
                  "jq -r .token | tr -d '\\n'");
    std::string answer;
    for (int i = 0; i < 10 && answer.find("invalid auth token") == std::string::npos; ++i) {
        std::this_thread::sleep_for(milliseconds(3'000));
        answer = run_shell("curl -s -H 'Authorization: " + token + "' " + url +
                           "/v3/kv/range -d '{\"key\": \"YQ==\"}'");
    }
    EXPECT_NE(answer.find("invalid auth token"), std::string::npos) << answer;
    EXPECT_TRUE(add_one(store, "c"));
    EXPECT_EQ((*store.get<CounterRecord>("c"))->value, 2u);
}

TEST(EtcdAccessTest, EndpointsAreThoseThatDocsName) {
    for (const char* good : {"https://etcd-1:2379", "https://[fd00::1]:2379",
                             "http://127.0.0.1:2379", "http://[::1]:2379"})
        EXPECT_TRUE(is_etcd_endpoint(good)) << good;
    for (const char* bad :
         {"", "etcd-1:2379", "http://etcd-1:2379", "http://[fd00::1]:2379", "https://host",
          "https://host:", "https://:1", "https://host:port", "https://host:123456",
          "https://host:1/path", "https://u@host:1", "ftp://127.0.0.1:1", "http://127.0.0.1:1x"})
        EXPECT_FALSE(is_etcd_endpoint(bad)) << bad;
    EXPECT_EQ(EtcdRows::make({.access = {.endpoints = {}}}).error().code, Errc::kInvalidArgument);
}

TEST(Base64Test, BothWays) {
    for (const char* text : {"", "a", "ab", "abc", "abcd", "\xff\xfe\x00x"})
        EXPECT_EQ(from_base64(to_base64(text)), text);
    EXPECT_EQ(to_base64("any carnal pleas"), "YW55IGNhcm5hbCBwbGVhcw==");
    for (const char* bad : {"a", "ab!=", "abcde"}) EXPECT_FALSE(from_base64(bad)) << bad;
}

}  // namespace
}  // namespace ublkd::metadata::test
