// Goal: the authority never authorizes one number twice, whatever happens to it (M3, M4).
// Method: as in permission_test.cc: real proposers at a barrier, the real daemon, its HTTP API,
// kill -9 and restart. Proposers of a round propose the same number with records of their own; what
// they were told is compared.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "tests/permission/askers.h"
#include "tests/permission/daemon.h"
#include "tests/permission/http_client.h"

namespace ublkd::permission_test {
namespace {

constexpr const char* kVolume = "vol-00000000000000abc";
constexpr const char* kPool = "pool-00000000000000001";

/// The proposal of member `proposer` (0 or 1) for `number`: both stay members, the proposer is
/// primary, and an attachment tells its record from the other's.
std::string proposal(unsigned proposer, std::uint64_t number) {
    nlohmann::json members = nlohmann::json::array();
    for (unsigned member = 0; member < 2; ++member)
        members.push_back({{"ReplicaId", incarnation_of(member)},
                           {"HostId", host_of(member)},
                           {"PoolId", kPool}});
    char attachment[32];
    std::snprintf(attachment, sizeof attachment, "att-0%016x", proposer + 1);
    const nlohmann::json next = {{"Number", number},
                                 {"Primary", incarnation_of(proposer)},
                                 {"Members", members},
                                 {"AttachmentIds", {attachment}}};
    return nlohmann::json{
        {"Proposer", incarnation_of(proposer)}, {"BaseNumber", number - 1}, {"Membership", next}}
        .dump();
}

struct Verdict {
    std::string verdict;       // "" where there was no answer
    std::uint64_t number = 0;  // of the record that the answer shows
    std::string primary;
};

Verdict propose_once(HttpClient& client, unsigned proposer, std::uint64_t number) {
    const auto answer = client.request(
        "POST", std::string("/v1/volumes/") + kVolume + "/membership", proposal(proposer, number));
    if (!answer || answer->status != 200) return {};
    const auto json = nlohmann::json::parse(answer->body, nullptr, false);
    if (!json.is_object()) return {};
    Verdict verdict{json.value("Verdict", ""), 0, ""};
    if (json.contains("Membership")) {
        verdict.number = json["Membership"].value("Number", std::uint64_t{0});
        verdict.primary = json["Membership"].value("Primary", "");
    }
    return verdict;
}

/// Until there is an answer: a lost one is followed by the same proposal (R4).
Verdict propose(HttpClient& client, unsigned proposer, std::uint64_t number, Told& told) {
    while (true) {
        const Verdict verdict = propose_once(client, proposer, number);
        if (!verdict.verdict.empty()) return verdict;
        ++told.lost;
        std::this_thread::sleep_for(std::chrono::milliseconds(3));
    }
}

/// Question q is number q + 2. Both propose it at the same moment; who is not authorized must see
/// the other's record.
void propose_all(const Board& board, const std::string& socket, unsigned proposer) {
    HttpClient client(socket);
    for (unsigned question = 0; question < board.questions(); ++question) {
        Told& told = board.told(proposer, question);
        board.wait_at_barrier();
        const Verdict verdict = propose(client, proposer, question + 2, told);
        const bool won = verdict.verdict == "authorized" || verdict.verdict == "already-yours";
        told.holder = static_cast<std::uint8_t>(
            verdict.number == question + 2 && verdict.primary == incarnation_of(0)   ? 1
            : verdict.number == question + 2 && verdict.primary == incarnation_of(1) ? 2
                                                                                     : 0);
        told.outcome = won                             ? Told::Outcome::kGranted
                       : verdict.verdict == "declined" ? Told::Outcome::kDenied
                                                       : Told::Outcome::kOdd;
    }
}

class AuthorityProcess : public ::testing::Test {
  protected:
    void SetUp() override {
        ASSERT_TRUE(daemon_.start()) << daemon_.log();
        ASSERT_TRUE(daemon_.initialize()) << daemon_.log();
        ASSERT_EQ(once(0, 1).verdict, "authorized") << daemon_.log();
    }
    void TearDown() override {
        if (HasFailure()) std::fputs(daemon_.log().c_str(), stderr);
    }
    void restart(const std::string& faults = "") {
        daemon_.kill_hard();
        ASSERT_TRUE(daemon_.start(faults)) << daemon_.log();
    }
    Verdict once(unsigned proposer, std::uint64_t number) {
        HttpClient client(daemon_.socket());
        return propose_once(client, proposer, number);
    }
    [[nodiscard]] bool run_proposers(const Board& board, const std::function<void()>& meanwhile,
                                     unsigned deadline_seconds) {
        const std::string socket = daemon_.socket();
        Askers proposers(board, [&](unsigned index) { propose_all(board, socket, index); });
        return proposers.finish(meanwhile, deadline_seconds);
    }

    Daemon daemon_;
};

void expect_each_number_once(const Board& board) {
    const Tally sum = tally(board);
    EXPECT_EQ(sum.granted_once, board.questions());
    EXPECT_EQ(sum.granted_twice, 0u);
    EXPECT_EQ(sum.granted_never, 0u);
    EXPECT_EQ(sum.odd, 0u);
    EXPECT_EQ(sum.wrong_holder, 0u);
}

TEST_F(AuthorityProcess, M3_TwoProposersOfTheSameNumberGetOneAuthorizedInTenThousandRounds) {
    const Board board(2, 10'000);
    ASSERT_TRUE(run_proposers(board, [] {}, 600));
    expect_each_number_once(board);
    restart();
    const std::uint64_t last = 10'001;
    for (const unsigned proposer : {0u, 1u}) {
        for (const std::uint64_t number : {last - 1, last / 2, std::uint64_t{2}})
            EXPECT_EQ(once(proposer, number).verdict, "declined") << number;
    }
    // The last number: its winner's record is known again, the other's declined.
    const bool first_won = board.told(0, board.questions() - 1).outcome == Told::Outcome::kGranted;
    EXPECT_EQ(once(first_won ? 0 : 1, last).verdict, "already-yours");
    EXPECT_EQ(once(first_won ? 1 : 0, last).verdict, "declined");
    EXPECT_EQ(once(1, last + 1).verdict, "authorized");
}

TEST_F(AuthorityProcess, M3_EqualNumberThatIsAcceptedIsCounted) {
    restart("rule.accept_equal_number=off;rule.base_compared=off");
    const Board board(2, 50);
    ASSERT_TRUE(run_proposers(board, [] {}, 60));
    EXPECT_GT(tally(board).granted_twice, 0u);
}

TEST_F(AuthorityProcess, M4_KilledBetweenStoreAndAnswerTheNumberIsTaken) {
    restart("authority.after_store=crash@1");
    EXPECT_EQ(once(0, 2).verdict, "");
    restart();
    const Verdict second = once(1, 2);
    EXPECT_EQ(second.verdict, "declined");
    EXPECT_EQ(second.primary, incarnation_of(0));  // it learns whose the number is
    EXPECT_EQ(once(0, 2).verdict, "already-yours");
}

TEST_F(AuthorityProcess, M4_KilledBeforeTheStoreTheNumberIsFree) {
    restart("authority.before_store=crash@1");
    EXPECT_EQ(once(0, 2).verdict, "");
    restart();
    EXPECT_EQ(once(1, 2).verdict, "authorized");
    EXPECT_EQ(once(0, 2).verdict, "declined");
}

TEST_F(AuthorityProcess, M4_ProposersOverManyKillsGetEachNumberOnce) {
    const std::string faults = "authority.after_store=crash@20;metadata.before_commit=crash@50";
    restart(faults);
    int deaths = 0;
    const auto revive = [&] {
        if (!daemon_.has_died()) return;
        EXPECT_EQ(daemon_.ended_by(), SIGKILL);
        daemon_.launch(++deaths < 8 ? faults : "");
    };
    const Board board(2, 300);
    ASSERT_TRUE(run_proposers(board, revive, 180));
    EXPECT_EQ(deaths, 8);
    EXPECT_GT(tally(board).lost_answers, 0u);
    expect_each_number_once(board);
}

TEST_F(AuthorityProcess, M4_NumberThatIsNotStoredFirstIsCounted) {
    restart("rule.authority_store_first=off");
    const Board board(2, 20);
    // Nothing is stored: every number but 2 is declined, and that one is authorized to both.
    ASSERT_TRUE(run_proposers(board, [] {}, 60));
    EXPECT_EQ(tally(board).granted_twice, 1u);
}

}  // namespace
}  // namespace ublkd::permission_test
