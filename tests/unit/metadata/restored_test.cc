// R16 in the metadata: a store that was restored from a backup decides nothing for a volume before
// all hosts that may know a newer record have reported, and goes on with the newest one then. And
// the file of a backup: it comes back as it was, and is refused where one byte of it is missing or
// another.
#include "metadata/restored.h"

#include <gtest/gtest.h>

#include "metadata/authority.h"
#include "metadata/backup/backup_file.h"
#include "metadata/place.h"
#include "tests/unit/metadata/hosted_volume.h"
#include "tests/unit/metadata/http_place.h"
#include "tests/unit/metadata/local_place.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::metadata::test {
namespace {

using replication::kGenerationNumbers;
using replication::Member;
using replication::Membership;
using replication::Proposal;
using replication::Verdict;

/// A volume of two members whose backup says number 1; since then number 2 had the second alone,
/// and number 3 had the third with it, of which the backup has no record.
class RestoredTest : public ::testing::TestWithParam<MakeMetadataPlace> {
  protected:
    void SetUp() override {
        ASSERT_EQ(
            authority_.propose({first_.replica, 0, record(1, {first_, second_}, first_)})->verdict,
            Verdict::kAuthorized);
        third_ = {ReplicaId::random(), HostId::random(), PoolId::random()};
        ASSERT_TRUE(store_->write([&](Transaction& tx) -> Result<void> {
            HostRecord host{.id = third_.host, .name = "third"};
            TRY(tx.put(host));
            PoolRecord pool{.id = third_.pool, .host = third_.host, .path = "/p", .domain = "d"};
            return tx.put(pool);
        }));
        newest_ = record(3, {second_, third_}, second_);
        restore(1);
    }
    void TearDown() override { faults::disarm_all(); }

    /// As a restore has it.
    void restore(std::uint64_t restores) {
        auto rows = *WholeStore::read(store_.get());
        ASSERT_TRUE(freeze_all(rows, restores));
        ASSERT_TRUE(store_->write([&](Transaction& tx) { return WholeStore::replace(tx, rows); }));
    }
    Membership record(std::uint64_t number, std::vector<Member> members,
                      const Member& primary) const {
        Membership made;
        made.volume = volume_;
        made.number = number;
        made.members = std::move(members);
        made.primary = primary.replica;
        return made;
    }
    VolumeReport report_of(const Member& member, std::vector<Membership> records) const {
        VolumeReport report;
        report.known = {member.host, std::move(records), {}};
        report.replicas.push_back({member.replica, member.pool});
        return report;
    }
    Confirmation confirm_by(const VolumeReport& report) {
        auto done = store_->write_for<Confirmation>(
            [&](Transaction& tx) { return confirm(tx, volume_, report); });
        EXPECT_TRUE(done);
        return done.value_or(Confirmation{true, "an error"});
    }
    bool holds_place_of(const Member& member) {
        return *store_->read_for<bool>(
            [&](Transaction& tx) { return holds_place(tx, volume_, member); });
    }

    std::unique_ptr<MetadataPlace> place_ = GetParam()();
    std::unique_ptr<MetadataStore> store_ = *place_->open();
    Authority authority_{store_.get()};
    HostedVolume hosted_{store_.get()};
    const VolumeId volume_ = hosted_.id();
    Member first_ = hosted_.hosted(0);
    Member second_ = hosted_.hosted(1);
    Member third_;
    Membership newest_;
};

INSTANTIATE_TEST_SUITE_P(Sqlite, RestoredTest, ::testing::Values(&make_sqlite_place));
INSTANTIATE_TEST_SUITE_P(OptimisticLocal, RestoredTest, ::testing::Values(&make_local_place));
INSTANTIATE_TEST_SUITE_P(Http, RestoredTest, ::testing::Values(&make_http_place));

TEST_P(RestoredTest, NothingIsDecidedByAFrozenRecord) {
    EXPECT_EQ(authority_.current(volume_).error().code, Errc::kStale);
    // Number 2 was authorized already, for another record.
    const Proposal again{first_.replica, 1, record(2, {first_}, first_)};
    EXPECT_EQ(authority_.propose(again).error().code, Errc::kStale);
    EXPECT_FALSE(store_->write([&](Transaction& tx) { return Authority::retire(tx, volume_); }));
    EXPECT_FALSE(store_->write(
        [&](Transaction& tx) { return PermissionService::revoke_all(tx, first_.replica); }));
    const auto other = hosted_.prepared();
    EXPECT_EQ(hosted_.ask(2, other), PermissionAnswer::kNotACandidate);
    ASSERT_TRUE(faults::arm("rule.restored_is_frozen=off"));
    EXPECT_EQ(authority_.propose(again)->verdict, Verdict::kAuthorized) << "twice";
}

TEST_P(RestoredTest, GoesOnWithTheNewestRecordWhenAllItsHostsHaveReported) {
    const auto waits = confirm_by(report_of(first_, {record(1, {first_, second_}, first_)}));
    EXPECT_TRUE(waits.frozen);
    EXPECT_NE(waits.waits_for.find(second_.host.to_string()), std::string::npos);
    EXPECT_NE(confirm_by(report_of(second_, {newest_})).waits_for.find("third"), std::string::npos);
    EXPECT_EQ(authority_.current(volume_).error().code, Errc::kStale);
    EXPECT_FALSE(confirm_by(report_of(third_, {newest_})).frozen);
    const auto now = **authority_.current(volume_);
    EXPECT_EQ(now.number, 2 * kGenerationNumbers);
    EXPECT_EQ(now.members, newest_.members);
    // What the backup did not know is known.
    EXPECT_TRUE(holds_place_of(second_));
    EXPECT_TRUE(holds_place_of(third_));
    EXPECT_FALSE(holds_place_of(first_));
    EXPECT_EQ((*store_->get<ReplicaRecord>(third_.replica))->state, ReplicaState::kReady);
    EXPECT_TRUE(store_->list<HostReportRecord>()->empty());
    const auto next = record(now.number + 1, {second_}, second_);
    EXPECT_EQ(authority_.propose({second_.replica, now.number, next})->verdict,
              Verdict::kAuthorized);
    EXPECT_FALSE(confirm_by(report_of(first_, {})).frozen) << "a late report says nothing";
}

TEST_P(RestoredTest, AMemberThatNobodyFindsIsWaitedFor) {
    // The second's host moved it to a pool of which the backup does not know; the first was left
    // out long ago. Both hosts report.
    auto moved = report_of(second_, {});
    moved.replicas.clear();
    (void)confirm_by(report_of(first_, {record(1, {first_, second_}, first_)}));
    const auto waits = confirm_by(moved);
    EXPECT_TRUE(waits.frozen);
    EXPECT_NE(waits.waits_for.find(second_.replica.to_string()), std::string::npos);
    ASSERT_TRUE(faults::arm("rule.members_found=off"));
    EXPECT_FALSE(confirm_by(moved).frozen) << "the first one's old content is served";
}

TEST_P(RestoredTest, TheSameBackupOnceMoreGivesOtherNumbers) {
    (void)confirm_by(report_of(first_, {}));
    (void)confirm_by(report_of(second_, {newest_}));
    (void)confirm_by(report_of(third_, {newest_}));
    auto later = **authority_.current(volume_);
    later.number += 5;
    restore(1);  // that store is lost, and the backup knows nothing of its generation
    (void)confirm_by(report_of(second_, {later}));
    EXPECT_FALSE(confirm_by(report_of(third_, {later})).frozen);
    EXPECT_EQ((*authority_.current(volume_))->number, 3 * kGenerationNumbers);
}

TEST_P(RestoredTest, AnOpenProposalsHostsAreWaitedFor) {
    auto proposes = report_of(second_, {record(2, {second_}, second_)});
    proposes.known.pending.push_back({second_.replica, 2, newest_});
    (void)confirm_by(report_of(first_, {}));
    const auto waits = confirm_by(proposes);
    EXPECT_NE(waits.waits_for.find("third"), std::string::npos) << waits.waits_for;
    auto nothing = report_of(third_, {});
    EXPECT_FALSE(confirm_by(nothing).frozen);
    EXPECT_EQ((*authority_.current(volume_))->members, std::vector<Member>{second_});
}

TEST_P(RestoredTest, ByForceItGoesOnWithAMarkThatDataMayBeLost) {
    (void)confirm_by(report_of(second_, {newest_}));
    ASSERT_TRUE(store_->write([&](Transaction& tx) { return confirm_by_force(tx, volume_); }));
    const auto now = **authority_.current(volume_);
    EXPECT_TRUE(now.data_may_be_lost);
    EXPECT_EQ(now.members, newest_.members);
    EXPECT_GE(now.number, 2 * kGenerationNumbers);
}

TEST_P(RestoredTest, AVolumeThatHadNoRecordYetIsFrozenToo) {
    HostedVolume other(store_.get());
    const Member made = other.prepared();
    restore(2);
    EXPECT_EQ(authority_.current(other.id()).error().code, Errc::kStale);
    VolumeReport report;
    report.known.host = made.host;
    const auto done = store_->write_for<Confirmation>(
        [&](Transaction& tx) { return confirm(tx, other.id(), report); });
    ASSERT_TRUE(done);
    EXPECT_FALSE(done->frozen) << "its creation goes on";
    EXPECT_EQ(*authority_.current(other.id()), std::nullopt);
}

TEST_P(RestoredTest, ABackupComesBackAsItWas) {
    Backup backup{*WholeStore::read(store_.get()), "one", 1234};
    const std::string text = backup_text(backup);
    const auto read = read_backup(text);
    ASSERT_TRUE(read);
    EXPECT_EQ(backup_text(*read), text);
    EXPECT_EQ(read->host, "one");
    EXPECT_EQ(read->created_ms, 1234U);
    ASSERT_TRUE(
        store_->write([&](Transaction& tx) { return WholeStore::replace(tx, read->rows); }));
    const auto again = *WholeStore::read(store_.get());
    for (std::size_t i = 0; i < again.tables.size(); ++i) {
        ASSERT_EQ(again.tables[i].rows.size(), backup.rows.tables[i].rows.size());
        for (std::size_t j = 0; j < again.tables[i].rows.size(); ++j)
            EXPECT_EQ(again.tables[i].rows[j].values, backup.rows.tables[i].rows[j].values);
    }
}

TEST(BackupFile, IsRefusedWhereAnyByteIsMissingOrAnother) {
    const auto store = (*make_sqlite_place()->open()).release();
    const std::unique_ptr<MetadataStore> owner(store);
    const HostedVolume volume(store);
    const std::string text = backup_text({*WholeStore::read(store), "one", 1});
    ASSERT_TRUE(read_backup(text));
    for (std::size_t i = 0; i < text.size(); ++i) {
        EXPECT_FALSE(read_backup(text.substr(0, i))) << i;
        std::string other = text;
        other[i] = static_cast<char>(other[i] ^ 1);
        EXPECT_FALSE(read_backup(other)) << i;
    }
    EXPECT_FALSE(read_backup(text + text));
    EXPECT_FALSE(read_backup(text + "\n"));
}

TEST(HostReport, IsReadBackAndRefusedWhereItIsCut) {
    Membership record;
    record.volume = VolumeId(1);
    record.number = 7;
    record.primary = ReplicaId(2);
    record.members = {{ReplicaId(2), HostId(3), PoolId(4)}};
    VolumeReport report;
    report.replicas = {{ReplicaId(2), PoolId(4)}};
    report.known = {HostId(3), {record}, {{ReplicaId(2), 7, record}}};
    const Bytes bytes = encode_report(report);
    const auto read = decode_report(HostId(3), bytes);
    ASSERT_TRUE(read);
    EXPECT_EQ(read->replicas, report.replicas);
    EXPECT_EQ(read->known.records, report.known.records);
    ASSERT_EQ(read->known.pending.size(), 1U);
    EXPECT_EQ(read->known.pending.front().base_number, 7U);
    EXPECT_EQ(read->known.pending.front().next, record);
    std::size_t whole = 0;  // cut between two things it is a shorter report
    for (std::size_t length = 0; length < bytes.size(); ++length)
        whole += decode_report(HostId(3), std::span(bytes).first(length)) ? 1U : 0U;
    EXPECT_EQ(whole, 3U);
}

}  // namespace
}  // namespace ublkd::metadata::test
