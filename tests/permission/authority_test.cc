// Goal: the authority never authorizes one number twice, whatever happens to it (M3, M4).
// And it lets nobody into a volume who does not host a replica of it.
// Method: as in permission_test.cc: real proposers at a barrier, the real daemon, its HTTP API,
// kill -9 and restart. Proposers of a round are the two members of a volume that nobody uses; they
// propose the same number with records of their own; what they were told is compared.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "tests/permission/askers.h"
#include "tests/permission/daemon.h"
#include "tests/permission/http_client.h"

namespace ublkd::permission_test {
namespace {

using nlohmann::json;

/// A volume with two replicas.
struct Volume {
    std::string id;
    json members;  // as the API tells them

    std::string replica(unsigned member) const { return members[member]["ReplicaId"]; }
};

json attachment_of(unsigned proposer) {
    char attachment[32];
    std::snprintf(attachment, sizeof attachment, "att-0%016x", proposer + 1);
    return json::array({attachment});
}

/// The proposal of member `proposer` (0 or 1) for `number`: both stay members, the proposer is
/// primary, and an attachment tells its record from the other's.
json proposal(const Volume& volume, unsigned proposer, std::uint64_t number) {
    const json next = {{"Number", number},
                       {"Primary", volume.replica(proposer)},
                       {"Members", volume.members},
                       {"AttachmentIds", attachment_of(proposer)}};
    return {
        {"Proposer", volume.replica(proposer)}, {"BaseNumber", number - 1}, {"Membership", next}};
}

struct Verdict {
    std::string verdict;       // "" where there was no answer
    std::uint64_t number = 0;  // of the record that the answer shows
    std::string primary;
};

Verdict propose_once(HttpClient& client, const Volume& volume, const json& proposed) {
    const auto answer =
        client.request("POST", "/v1/volumes/" + volume.id + "/membership", proposed.dump());
    if (!answer || answer->status != 200) return {};
    const auto told = json::parse(answer->body, nullptr, false);
    if (!told.is_object()) return {};
    Verdict verdict{told.value("Verdict", ""), 0, ""};
    if (told.contains("Membership")) {
        verdict.number = told["Membership"].value("Number", std::uint64_t{0});
        verdict.primary = told["Membership"].value("Primary", "");
    }
    return verdict;
}

/// Until there is an answer: a lost one is followed by the same proposal (R4).
Verdict propose(HttpClient& client, const Volume& volume, unsigned proposer, std::uint64_t number,
                Told& told) {
    while (true) {
        const Verdict verdict = propose_once(client, volume, proposal(volume, proposer, number));
        if (!verdict.verdict.empty()) return verdict;
        ++told.lost;
        std::this_thread::sleep_for(std::chrono::milliseconds(3));
    }
}

/// Question q is number q + 2. Both propose it at the same moment; who is not authorized must see
/// the other's record.
void propose_all(const Board& board, const std::string& socket, const Volume& volume,
                 unsigned proposer) {
    HttpClient client(socket);
    for (unsigned question = 0; question < board.questions(); ++question) {
        Told& told = board.told(proposer, question);
        board.wait_at_barrier();
        const Verdict verdict = propose(client, volume, proposer, question + 2, told);
        const bool won = verdict.verdict == "authorized" || verdict.verdict == "already-yours";
        told.holder = static_cast<std::uint8_t>(
            verdict.number == question + 2 && verdict.primary == volume.replica(0)   ? 1
            : verdict.number == question + 2 && verdict.primary == volume.replica(1) ? 2
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
        const json second = {
            {"Path", daemon_.folder() / "pool-b"}, {"Domain", "b"}, {"Buffered", true}};
        ASSERT_TRUE(ask("POST", "/v1/pools", second).is_object()) << daemon_.log();
        volume_ = new_volume();
        ASSERT_EQ(volume_.members.size(), 2u) << daemon_.log();
    }
    void TearDown() override {
        if (HasFailure()) std::fputs(daemon_.log().c_str(), stderr);
    }
    void restart(const std::string& faults = "") {
        daemon_.kill_hard();
        ASSERT_TRUE(daemon_.start(faults)) << daemon_.log();
    }
    /// The answer's body; null where it is not 200.
    json ask(const std::string& method, const std::string& path, const json& body = nullptr) {
        HttpClient client(daemon_.socket());
        const auto answer = client.request(method, path, body.is_null() ? "" : body.dump());
        return answer && answer->status == 200 ? json::parse(answer->body) : json();
    }
    Volume new_volume() {
        const json made = ask("POST", "/v1/volumes", {{"SizeBytes", 4 << 20}, {"Replicas", 2}});
        const std::string id = made.is_object() ? made.value("VolumeId", "") : "";
        const json record = ask("GET", "/v1/volumes/" + id + "/membership");
        return Volume{id, record.is_object() ? record["Members"] : json::array()};
    }
    Verdict once(const json& proposed) {
        HttpClient client(daemon_.socket());
        return propose_once(client, volume_, proposed);
    }
    Verdict once(unsigned proposer, std::uint64_t number) {
        return once(proposal(volume_, proposer, number));
    }
    [[nodiscard]] bool run_proposers(const Board& board, const std::function<void()>& meanwhile,
                                     unsigned deadline_seconds) {
        const std::string socket = daemon_.socket();
        Askers proposers(board,
                         [&](unsigned index) { propose_all(board, socket, volume_, index); });
        return proposers.finish(meanwhile, deadline_seconds);
    }

    Daemon daemon_;
    Volume volume_;
};

TEST_F(AuthorityProcess, M3_TwoProposersOfTheSameNumberGetOneAuthorizedInTenThousandRounds) {
    const Board board(2, 10'000);
    ASSERT_TRUE(run_proposers(board, [] {}, 600));
    expect_one_grant_each(board);
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
    EXPECT_EQ(second.primary, volume_.replica(0));  // it learns whose the number is
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
    expect_one_grant_each(board);
}

TEST_F(AuthorityProcess, M4_NumberThatIsNotStoredFirstIsCounted) {
    restart("rule.authority_store_first=off");
    const Board board(2, 20);
    // Nothing is stored: every number but 2 is declined, and that one is authorized to both.
    ASSERT_TRUE(run_proposers(board, [] {}, 60));
    EXPECT_EQ(tally(board).granted_twice, 1u);
}

TEST_F(AuthorityProcess, NobodyJoinsWhoHostsNoReplicaOfTheVolume) {
    // As the primary, in whose name anybody may ask.
    const auto with_members = [&](const json& members, const std::string& primary) {
        json proposed = proposal(volume_, 0, 2);
        proposed["Membership"]["Members"] = members;
        proposed["Membership"]["Primary"] = primary;
        return proposed;
    };
    json invented = volume_.members[0];
    invented["ReplicaId"] = incarnation_of(0);
    const Volume other = new_volume();
    json mixed = volume_.members;
    mixed[1] = invented;
    json moved = volume_.members;
    moved[1]["PoolId"] = moved[0]["PoolId"];
    const std::string primary = volume_.replica(0);
    EXPECT_EQ(once(with_members(json::array({invented}), incarnation_of(0))).verdict, "declined");
    EXPECT_EQ(once(with_members(mixed, primary)).verdict, "declined");
    EXPECT_EQ(once(with_members(moved, primary)).verdict, "declined");
    EXPECT_EQ(once(with_members(other.members, other.replica(0))).verdict, "declined");
    // A place that is free is not given to who has prepared nothing, so that it can join.
    const json question = {{"ResourceId", volume_.id + "/replica/2"},
                           {"HostId", volume_.members[0]["HostId"]},
                           {"Incarnation", incarnation_of(0)}};
    EXPECT_EQ(ask("POST", "/v1/permissions", question).value("Answer", ""), "not-a-candidate");
    EXPECT_EQ(ask("GET", "/v1/volumes/" + volume_.id + "/membership").value("Number", 0), 1);
    EXPECT_EQ(once(0, 2).verdict, "authorized");
}

TEST_F(AuthorityProcess, NobodyProposesForAVolumeThatRuns) {
    const json attach = {{"Frontend", "nbd"}};
    ASSERT_TRUE(ask("POST", "/v1/volumes/" + volume_.id + "/attach", attach).is_object());
    HttpClient client(daemon_.socket());
    const auto answer = client.request("POST", "/v1/volumes/" + volume_.id + "/membership",
                                       proposal(volume_, 1, 2).dump());
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->status, 409);
    EXPECT_NE(answer->body.find("runs on this host"), std::string::npos) << answer->body;
    ASSERT_TRUE(ask("POST", "/v1/volumes/" + volume_.id + "/detach", json::object()).is_object());
    EXPECT_EQ(once(1, 2).verdict, "authorized");
}

}  // namespace
}  // namespace ublkd::permission_test
