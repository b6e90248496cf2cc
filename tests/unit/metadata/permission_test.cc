// The permission service over each store, in one process: each transition of docs/metadata.md, and
// each rule switched off. With real processes and kill -9: tests/permission.
#include "metadata/permission.h"

#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <thread>

#include "metadata/authority.h"
#include "tests/unit/metadata/hosted_volume.h"
#include "tests/unit/metadata/http_place.h"
#include "tests/unit/metadata/local_place.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::metadata::test {
namespace {

Holder new_holder() { return Holder{HostId::random(), ReplicaId::random()}; }

class PermissionTest : public ::testing::TestWithParam<MakeMetadataPlace> {
  protected:
    void TearDown() override { faults::disarm_all(); }
    PermissionAnswer ask(const std::string& resource, const Holder& asker) {
        return permissions_.request(resource, asker)->answer;
    }
    Result<void> delete_resource(const std::string& resource) {
        return store_->write(
            [&](Transaction& tx) { return PermissionService::delete_resource(tx, resource); });
    }
    void restart() {
        store_.reset();
        store_ = *place_->open();
        permissions_ = PermissionService(store_.get());
    }

    std::unique_ptr<MetadataPlace> place_ = GetParam()();
    std::unique_ptr<MetadataStore> store_ = *place_->open();
    PermissionService permissions_{store_.get()};
    const Holder one_ = new_holder();
    const Holder two_ = new_holder();
};

INSTANTIATE_TEST_SUITE_P(Sqlite, PermissionTest, ::testing::Values(&make_sqlite_place));
INSTANTIATE_TEST_SUITE_P(OptimisticLocal, PermissionTest, ::testing::Values(&make_local_place));
INSTANTIATE_TEST_SUITE_P(Http, PermissionTest, ::testing::Values(&make_http_place));

TEST_P(PermissionTest, FirstToAskIsGrantedAndAllOthersAreDenied) {
    EXPECT_EQ(ask("r", one_), PermissionAnswer::kGranted);
    const auto denied = *permissions_.request("r", two_);
    EXPECT_EQ(denied.answer, PermissionAnswer::kHeldByAnother);
    EXPECT_EQ(denied.holder, one_);
    EXPECT_EQ(ask("other", two_), PermissionAnswer::kGranted);
    ASSERT_TRUE(faults::arm("rule.permission_first_wins=off"));
    EXPECT_EQ(ask("r", two_), PermissionAnswer::kGranted);  // two hold one resource
}

TEST_P(PermissionTest, HoldersRetryIsGrantedAgainAlsoAfterARestart) {
    EXPECT_EQ(ask("r", one_), PermissionAnswer::kGranted);
    EXPECT_EQ(ask("r", one_), PermissionAnswer::kGranted);
    restart();
    EXPECT_EQ(ask("r", two_), PermissionAnswer::kHeldByAnother);
    EXPECT_EQ(ask("r", one_), PermissionAnswer::kGranted);
}

TEST_P(PermissionTest, NewIncarnationOfTheHolderDoesNotInherit) {
    EXPECT_EQ(ask("r", one_), PermissionAnswer::kGranted);
    const Holder reborn{one_.host, ReplicaId::random()};
    EXPECT_EQ(ask("r", reborn), PermissionAnswer::kHeldByAnother);
    ASSERT_TRUE(faults::arm("rule.permission_incarnation=off"));
    EXPECT_EQ(ask("r", reborn), PermissionAnswer::kGranted);
}

TEST_P(PermissionTest, GrantThatIsNotStoredFirstIsGivenTwice) {
    ASSERT_TRUE(faults::arm("rule.permission_store_first=off"));
    EXPECT_EQ(ask("r", one_), PermissionAnswer::kGranted);
    EXPECT_EQ(ask("r", two_), PermissionAnswer::kGranted);
}

TEST_P(PermissionTest, DeletedResourceIsDeniedForEver) {
    ASSERT_EQ(ask("held", one_), PermissionAnswer::kGranted);
    ASSERT_TRUE(delete_resource("held"));
    ASSERT_TRUE(delete_resource("never"));
    ASSERT_TRUE(delete_resource("held"));  // again: nothing happens
    restart();
    EXPECT_EQ(ask("held", one_), PermissionAnswer::kDeleted);
    EXPECT_EQ(ask("held", two_), PermissionAnswer::kDeleted);
    EXPECT_EQ(ask("never", two_), PermissionAnswer::kDeleted);
    ASSERT_TRUE(faults::arm("rule.permission_tombstone=off"));
    EXPECT_EQ(ask("held", two_),
              PermissionAnswer::kGranted);  // a deleted volume comes back to life
}

TEST_P(PermissionTest, RevokedHolderIsDeniedAndTheNextToAskIsGranted) {
    ASSERT_EQ(ask("r", one_), PermissionAnswer::kGranted);
    const PermissionRecord revoked = *permissions_.revoke("r", one_);
    EXPECT_EQ(revoked.state, PermissionState::kRevoked);
    EXPECT_EQ(revoked.generation, 2u);
    EXPECT_EQ(ask("r", one_), PermissionAnswer::kRevokedFromAsker);
    const auto granted = *permissions_.request("r", two_);
    EXPECT_EQ(granted.answer, PermissionAnswer::kGranted);
    EXPECT_EQ(granted.generation, 2u);
    EXPECT_EQ(ask("r", one_), PermissionAnswer::kHeldByAnother);
    // Revoked from the second too, the first stays barred.
    ASSERT_TRUE(permissions_.revoke("r", two_));
    EXPECT_EQ(ask("r", one_), PermissionAnswer::kRevokedFromAsker);
    EXPECT_EQ(ask("r", two_), PermissionAnswer::kRevokedFromAsker);
    // The host itself may come with a new, empty incarnation.
    EXPECT_EQ(ask("r", Holder{one_.host, ReplicaId::random()}), PermissionAnswer::kGranted);
}

TEST_P(PermissionTest, RevokedHolderIsGrantedSilentlyWithTheRuleOff) {
    ASSERT_EQ(ask("r", one_), PermissionAnswer::kGranted);
    ASSERT_TRUE(permissions_.revoke("r", one_));
    ASSERT_TRUE(faults::arm("rule.permission_past_holder=off"));
    EXPECT_EQ(ask("r", one_), PermissionAnswer::kGranted);
}

TEST_P(PermissionTest, RevokeNamesTheHolder) {
    EXPECT_EQ(permissions_.revoke("r", one_).error().code, Errc::kNotFound);
    ASSERT_EQ(ask("r", one_), PermissionAnswer::kGranted);
    EXPECT_EQ(permissions_.revoke("r", two_).error().code, Errc::kConflict);
    EXPECT_EQ(permissions_.revoke("r", Holder{one_.host, two_.incarnation}).error().code,
              Errc::kConflict);
    ASSERT_TRUE(delete_resource("r"));
    EXPECT_EQ(permissions_.revoke("r", one_).error().code, Errc::kNotFound);
}

TEST_P(PermissionTest, MemberIsNotRevokedBeforeTheMembershipMovedOn) {
    Authority authority(store_.get());
    const HostedVolume volume(store_.get());
    const replication::Member first = volume.hosted(0);
    const replication::Member second = volume.hosted(1);
    replication::Membership membership;
    membership.volume = volume.id();
    membership.number = 1;
    membership.primary = first.replica;
    membership.members = {first, second};
    ASSERT_EQ(authority.propose({first.replica, 0, membership})->verdict,
              replication::Verdict::kAuthorized);
    const Holder second_holder{second.host, second.replica};
    EXPECT_EQ(permissions_.revoke(volume.place(1), second_holder).error().code, Errc::kBusy);
    ++membership.number;
    membership.members.pop_back();
    ASSERT_EQ(authority.propose({first.replica, 1, membership})->verdict,
              replication::Verdict::kAuthorized);
    EXPECT_TRUE(permissions_.revoke(volume.place(1), second_holder));
    const Holder first_holder{first.host, first.replica};
    EXPECT_EQ(permissions_.revoke(volume.place(0), first_holder).error().code, Errc::kBusy);
    ASSERT_TRUE(faults::arm("rule.permission_revoke_fenced=off"));
    EXPECT_TRUE(permissions_.revoke(volume.place(0), first_holder));
}

TEST_P(PermissionTest, PlaceOfAVolumeIsForThoseWhoPreparedAReplicaOfIt) {
    const HostedVolume volume(store_.get());
    const HostedVolume other(store_.get());
    const replication::Member prepared = volume.prepared();
    const replication::Member of_another = other.prepared();
    const auto member = [](ReplicaId replica, HostId host) {
        return replication::Member{replica, host, {}};
    };
    EXPECT_EQ(ask(volume.place(0), one_), PermissionAnswer::kNotACandidate);  // invented
    EXPECT_EQ(volume.ask(0, of_another), PermissionAnswer::kNotACandidate);
    EXPECT_EQ(volume.ask(0, member(prepared.replica, of_another.host)),
              PermissionAnswer::kNotACandidate);
    EXPECT_EQ(volume.ask(3, prepared), PermissionAnswer::kNotACandidate);  // it has three
    EXPECT_EQ(ask(place_name(VolumeId::random(), 0), one_), PermissionAnswer::kNotACandidate);
    EXPECT_TRUE(permissions_.list()->empty());
    // After a revoke as before the first question.
    ASSERT_EQ(volume.ask(0, prepared), PermissionAnswer::kGranted);
    ASSERT_TRUE(permissions_.revoke(volume.place(0), Holder{prepared.host, prepared.replica}));
    EXPECT_EQ(ask(volume.place(0), one_), PermissionAnswer::kNotACandidate);
    EXPECT_EQ(volume.ask(0, volume.prepared()), PermissionAnswer::kGranted);
    ASSERT_TRUE(faults::arm("rule.permission_candidates=off"));
    EXPECT_EQ(ask(volume.place(1), one_), PermissionAnswer::kGranted);  // and nobody hosts it
}

TEST_P(PermissionTest, PlacesAreNamedInOneWay) {
    const VolumeId volume = VolumeId::random();
    EXPECT_EQ(parse_place(place_name(volume, 12)), (Place{volume, 12}));
    const std::string id = volume.to_string();
    for (const std::string& other :
         {id, id + "/replica/", id + "/replica/01", id + "/replica/+1", id + "/replica/1/",
          id + "/replica/99999999999", id + "x/replica/1", std::string("vol-1/replica/1"),
          std::string("/replica/1")})
        EXPECT_EQ(parse_place(other), std::nullopt) << other;
}

TEST_P(PermissionTest, SweeperAsksUntilTheHolderConfirms) {
    ASSERT_EQ(ask("deleted", one_), PermissionAnswer::kGranted);
    ASSERT_EQ(ask("kept", one_), PermissionAnswer::kGranted);
    ASSERT_EQ(ask("revoked", two_), PermissionAnswer::kGranted);
    ASSERT_TRUE(delete_resource("deleted"));
    ASSERT_TRUE(permissions_.revoke("revoked", two_));
    ASSERT_TRUE(delete_resource("unheld"));

    std::vector<std::string> sent;
    const auto unreachable = [&](const DeleteRequest& request) -> Result<void> {
        sent.push_back(request.resource);
        return fail(Errc::kTimedOut, "host does not answer");
    };
    EXPECT_EQ(*permissions_.sweep(unreachable), 2u);
    EXPECT_EQ(sent, (std::vector<std::string>{"deleted", "revoked"}));
    restart();
    sent.clear();
    const auto one_answers = [&](const DeleteRequest& request) -> Result<void> {
        sent.push_back(request.resource);
        if (request.holder == one_) return {};
        return fail(Errc::kTimedOut, "host does not answer");
    };
    EXPECT_EQ(*permissions_.sweep(one_answers), 1u);
    EXPECT_EQ(sent.size(), 2u);
    EXPECT_EQ(permissions_.pending_deletes()->size(), 1u);
    EXPECT_TRUE(permissions_.confirm_delete({"revoked", two_}));
    EXPECT_TRUE(permissions_.confirm_delete({"revoked", two_}));  // its answer was lost
    EXPECT_EQ(permissions_.confirm_delete({"kept", one_}).error().code, Errc::kNotFound);
    sent.clear();
    EXPECT_EQ(*permissions_.sweep(unreachable), 0u);
    EXPECT_TRUE(sent.empty());
}

TEST_P(PermissionTest, DeletionIsPartOfTheCallersTransaction) {
    ASSERT_EQ(ask("r", one_), PermissionAnswer::kGranted);
    EXPECT_FALSE(store_->write([&](Transaction& tx) -> Result<void> {
        TRY(PermissionService::delete_resource(tx, "r"));
        return fail(Errc::kBusy, "given up");
    }));
    EXPECT_EQ(ask("r", one_), PermissionAnswer::kGranted);
    EXPECT_TRUE(permissions_.pending_deletes()->empty());
}

TEST_P(PermissionTest, BadNamesAndAskersAreRefused) {
    for (const std::string& name :
         {std::string(), std::string(129, 'a'), std::string("a b"), std::string("a\n"),
          std::string("\xc3\xa4"), std::string("a\0b", 3)})
        EXPECT_EQ(permissions_.request(name, one_).error().code, Errc::kInvalidArgument) << name;
    EXPECT_EQ(delete_resource("a b").error().code, Errc::kInvalidArgument);
    EXPECT_EQ(permissions_.request("r", Holder{HostId(), one_.incarnation}).error().code,
              Errc::kInvalidArgument);
    EXPECT_EQ(permissions_.request("r", Holder{one_.host, ReplicaId()}).error().code,
              Errc::kInvalidArgument);
    EXPECT_TRUE(permissions_.list()->empty());
    EXPECT_EQ(ask("vol-0123456789abcdef0/replica:1.A_b", one_), PermissionAnswer::kGranted);
}

TEST_P(PermissionTest, ErrorBeforeTheStoreGrantsNothing) {
    ASSERT_TRUE(faults::arm("permission.before_store=fail"));
    EXPECT_EQ(permissions_.request("r", one_).error().code, Errc::kIo);
    faults::disarm_all();
    EXPECT_EQ(ask("r", two_), PermissionAnswer::kGranted);
}

TEST_P(PermissionTest, ErrorAfterTheStoreKeepsTheGrantForItsAsker) {
    ASSERT_TRUE(faults::arm("permission.after_store=fail"));
    EXPECT_FALSE(permissions_.request("r", one_));
    faults::disarm_all();
    EXPECT_EQ(ask("r", two_), PermissionAnswer::kHeldByAnother);
    EXPECT_EQ(ask("r", one_), PermissionAnswer::kGranted);
}

TEST_P(PermissionTest, ThreadsAtABarrierGetOneGrantAResource) {
    constexpr int kAskers = 8;
    for (int round = 0; round < 40; ++round) {
        const std::string resource = "r" + std::to_string(round);
        std::atomic<int> granted = 0;
        std::barrier start(kAskers);
        std::vector<std::jthread> threads;
        for (int i = 0; i < kAskers; ++i) {
            threads.emplace_back([&] {
                const Holder asker = new_holder();
                start.arrive_and_wait();
                if (ask(resource, asker) == PermissionAnswer::kGranted) ++granted;
            });
        }
        threads.clear();
        ASSERT_EQ(granted, 1) << resource;
    }
}

}  // namespace
}  // namespace ublkd::metadata::test
