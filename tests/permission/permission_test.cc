// Goal: exactly one host is ever granted a resource, counted from the hosts' side, whatever happens
// to the service (P1, P2, P5 of the first-to-ask claims; the numbers are in the tests' names).
// Method: real processes ask the real daemon through its HTTP API, released by a barrier at the
// same resources; the daemon is killed at fault points and at random moments and started again, the
// askers ask again until they are answered. With a rule switched off the same count has to find the
// double grant. UBLKD_SOAK in the environment: 100 random kills instead of 20.
#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <thread>

#include "tests/permission/askers.h"
#include "tests/permission/daemon.h"
#include "tests/permission/enroll.h"
#include "tests/permission/http_client.h"

namespace ublkd::permission_test {
namespace {

constexpr unsigned kAskersMax = 32;
constexpr unsigned kResourcesPerBarrier = 25;

/// One asker: all resources in turn, with all others released at the same moment every
/// kResourcesPerBarrier.
void ask_all(const Board& board, const std::string& socket, const std::string& prefix,
             unsigned index) {
    HttpClient client(socket);
    for (unsigned question = 0; question < board.questions(); ++question) {
        if (question % kResourcesPerBarrier == 0) board.wait_at_barrier();
        ask_until_answered(client, resource_of(prefix, question), index,
                           board.told(index, question));
    }
}

class Permission : public ::testing::Test {
  protected:
    void SetUp() override {
        ASSERT_TRUE(daemon_.start()) << daemon_.log();
        ASSERT_TRUE(daemon_.initialize()) << daemon_.log();
        ASSERT_TRUE(enroll_hosts(daemon_, kAskersMax)) << daemon_.log();
    }
    void TearDown() override {
        if (HasFailure()) std::fputs(daemon_.log().c_str(), stderr);
    }
    void restart(const std::string& faults = "") {
        daemon_.kill_hard();
        ASSERT_TRUE(daemon_.start(faults)) << daemon_.log();
    }
    /// Asks once, as asker `index`, from this process.
    Told::Outcome ask(const std::string& resource, unsigned index) {
        HttpClient client(daemon_.socket());
        Told told;
        ask_until_answered(client, resource, index, told);
        return told.outcome;
    }
    /// All askers ask for all resources; `meanwhile` runs until they are done.
    [[nodiscard]] bool run_askers(const Board& board, const std::string& prefix,
                                  const std::function<void()>& meanwhile,
                                  unsigned deadline_seconds) {
        const std::string socket = daemon_.socket();
        Askers askers(board, [&](unsigned index) { ask_all(board, socket, prefix, index); });
        return askers.finish(meanwhile, deadline_seconds);
    }
    /// Starts the daemon again whenever it has died, `crashes` times with `faults`, then without.
    std::function<void()> reviving(const std::string& faults, int crashes) {
        return [this, faults, left = crashes]() mutable {
            if (!daemon_.has_died()) return;
            ++deaths_;
            EXPECT_EQ(daemon_.ended_by(), SIGKILL);
            daemon_.launch(--left > 0 ? faults : "");  // it may die again at once: no waiting
        };
    }
    /// Eight askers of 200 resources; the daemon dies five times by `faults`.
    Tally crowd_with_deaths_at(const std::string& faults) {
        restart(faults);
        const Board board(8, 200);
        EXPECT_TRUE(run_askers(board, "vol-1", reviving(faults, 5), 180));
        EXPECT_EQ(deaths_, 5);
        expect_one_grant_each(board);
        return tally(board);
    }

    Daemon daemon_;
    int deaths_ = 0;
};

TEST_F(Permission, P1_ThirtyTwoAskersOnTenThousandResourcesGetOneGrantEach) {
    const Board board(kAskersMax, 10'000);
    ASSERT_TRUE(run_askers(board, "vol-1", [] {}, 600));
    expect_one_grant_each(board);
}

TEST_F(Permission, P1_TwoToSixteenAskersGetOneGrantEach) {
    for (const unsigned processes : {2u, 3u, 8u, 16u}) {
        const Board board(processes, 300);
        ASSERT_TRUE(run_askers(board, "vol-" + std::to_string(processes), [] {}, 120));
        expect_one_grant_each(board);
    }
}

TEST_F(Permission, P1_GrantsToTwoAreCountedWithARuleOff) {
    unsigned volume = 0;
    for (const char* rule : {"rule.permission_first_wins", "rule.permission_store_first"}) {
        restart(std::string(rule) + "=off");
        const Board board(4, 50);
        ASSERT_TRUE(run_askers(board, "vol-" + std::to_string(++volume), [] {}, 60));
        EXPECT_GT(tally(board).granted_twice, 0u) << rule;
    }
}

TEST_F(Permission, P1_UnknownHostsAreRefusedAndNothingIsStored) {
    HttpClient client(daemon_.socket());
    const auto answer = client.request("POST", "/v1/permissions",
                                       R"({"ResourceId":"r","HostId":")" + host_of(kAskersMax) +
                                           R"(","Incarnation":")" + incarnation_of(0) + R"("})");
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->status, 404);
    EXPECT_NE(answer->body.find("InvalidHost.NotFound"), std::string::npos) << answer->body;
    EXPECT_EQ(ask("r", 0), Told::Outcome::kGranted);
}

TEST_F(Permission, P2_KilledBeforeTheStoreAnybodyMayWin) {
    restart("permission.before_store=crash@1");
    HttpClient first(daemon_.socket());
    EXPECT_FALSE(first.request("POST", "/v1/permissions",
                               R"({"ResourceId":"r","HostId":")" + host_of(0) +
                                   R"(","Incarnation":")" + incarnation_of(0) + R"("})"));
    restart();
    EXPECT_EQ(ask("r", 1), Told::Outcome::kGranted);  // nothing was stored
    EXPECT_EQ(ask("r", 0), Told::Outcome::kDenied);
}

TEST_F(Permission, P2_KilledBetweenStoreAndAnswerOnlyTheSameHostWins) {
    restart("permission.after_store=crash@1");
    HttpClient first(daemon_.socket());
    EXPECT_FALSE(first.request("POST", "/v1/permissions",
                               R"({"ResourceId":"r","HostId":")" + host_of(0) +
                                   R"(","Incarnation":")" + incarnation_of(0) + R"("})"));
    restart();
    EXPECT_EQ(ask("r", 1), Told::Outcome::kDenied);  // it is stored, although nobody was told
    EXPECT_EQ(ask("r", 0), Told::Outcome::kGranted);
}

TEST_F(Permission, P2_CrowdKilledBeforeTheStoreGetsOneGrantEach) {
    EXPECT_GT(crowd_with_deaths_at("permission.before_store=crash@7").lost_answers, 0u);
}

TEST_F(Permission, P2_CrowdKilledInTheMiddleOfTheRecordGetsOneGrantEach) {
    crowd_with_deaths_at("metadata.before_commit=crash@7");
}

TEST_F(Permission, P2_CrowdKilledBetweenStoreAndAnswerGetsOneGrantEach) {
    EXPECT_GT(crowd_with_deaths_at("permission.after_store=crash@7").lost_answers, 0u);
}

TEST_F(Permission, P2_KilledAtRandomMomentsOneGrantEach) {
    const unsigned kills_wanted = std::getenv("UBLKD_SOAK") != nullptr ? 100 : 20;
    const unsigned seed = std::random_device()();
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    unsigned kills = 0;
    unsigned with_lost_answers = 0;
    for (unsigned round = 0; kills < kills_wanted; ++round) {
        const Board board(8, 150);
        auto next = std::chrono::steady_clock::now() + std::chrono::milliseconds(random() % 60);
        const auto kill_sometimes = [&] {
            if (kills == kills_wanted || std::chrono::steady_clock::now() < next) return;
            daemon_.kill_hard();
            ++kills;
            EXPECT_TRUE(daemon_.start()) << daemon_.log();
            next = std::chrono::steady_clock::now() + std::chrono::milliseconds(random() % 60);
        };
        ASSERT_TRUE(run_askers(board, "vol-" + std::to_string(round), kill_sometimes, 300));
        expect_one_grant_each(board);
        if (tally(board).lost_answers > 0) ++with_lost_answers;
    }
    EXPECT_GT(with_lost_answers, 0u);  // the kills did hit questions under way
}

TEST_F(Permission, P2_KilledWhileGrantsAreNotStoredFirstIsCounted) {
    const std::string faults = "rule.permission_store_first=off;permission.after_store=crash@7";
    restart(faults);
    const Board board(4, 50);
    ASSERT_TRUE(run_askers(board, "vol-1", reviving(faults, 2), 60));
    EXPECT_GT(tally(board).granted_twice, 0u);
}

TEST_F(Permission, P5_ThousandGrantsStillBlockAllOthersAfterARestart) {
    const Board before(1, 1'000);
    ASSERT_TRUE(run_askers(before, "vol-1", [] {}, 120));
    EXPECT_EQ(tally(before).granted_once, 1'000u);
    restart();
    for (unsigned i = 0; i < 1'000; ++i) {
        ASSERT_EQ(ask(resource_of("vol-1", i), 1), Told::Outcome::kDenied) << i;
        ASSERT_EQ(ask(resource_of("vol-1", i), 0), Told::Outcome::kGranted) << i;
    }
}

}  // namespace
}  // namespace ublkd::permission_test
