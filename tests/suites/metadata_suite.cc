// Goal: the contract of MetadataStore, for any backend. Method: each promise of metadata/store.h is
// asked for through the interface alone; concurrency by real threads; durability by closing and
// opening again (kill -9 and power cuts are each backend's own tests, tests/permission and
// sqlite_power_cut_test).
#include "tests/suites/metadata_suite.h"

#include <atomic>
#include <thread>

#include "metadata/records.h"

namespace ublkd::metadata::test {
namespace {

HostRecord host_record(std::string name) {
    return HostRecord{.id = HostId::random(), .name = std::move(name), .created_ms = 1};
}

VolumeRecord volume_record() {
    return VolumeRecord{.id = VolumeId::random(), .size_bytes = 1 << 20, .created_ms = 7};
}

PoolRecord pool_record(HostId host, std::string path) {
    return PoolRecord{.id = PoolId::random(), .host = host, .path = std::move(path), .domain = "a"};
}

CounterRecord counter(std::string name, std::uint64_t value) {
    return CounterRecord{.name = std::move(name), .value = value};
}

replication::Membership membership_of(VolumeId volume, std::uint64_t number) {
    const replication::Member member{ReplicaId::random(), HostId::random(), PoolId::random()};
    replication::Membership membership;
    membership.volume = volume;
    membership.number = number;
    membership.primary = member.replica;
    membership.members = {member};
    membership.attachments = {AttachmentId::random()};
    return membership;
}

}  // namespace

void MetadataSuite::SetUp() {
    place_ = GetParam()();
    reopen();
}

void MetadataSuite::reopen() {
    store_.reset();
    auto opened = place_->open();
    ASSERT_TRUE(opened) << to_string(opened.error());
    store_ = std::move(*opened);
}

TEST_P(MetadataSuite, EmptyStoreHasNoRecords) {
    EXPECT_EQ(*store().get<VolumeRecord>(VolumeId::random()), std::nullopt);
    EXPECT_TRUE(store().list<VolumeRecord>()->empty());
}

TEST_P(MetadataSuite, EveryKindOfRecordComesBackAsItWasPut) {
    const HostRecord host = host_record("alpha");
    InstanceRecord instance{
        .id = InstanceId::random(), .host = host.id, .is_host = true, .created_ms = 2};
    PoolRecord pool = pool_record(host.id, "/srv/p");
    pool.size_bytes = std::uint64_t{1} << 62;
    pool.buffered = true;
    pool.state = PoolState::kFailed;
    VolumeRecord volume = volume_record();
    volume.state = VolumeState::kInUse;
    volume.block_bytes = 4096;
    volume.replica_count = 3;
    volume.durability = Durability::kWrite;
    volume.on_full = OnFull::kFail;
    ReplicaRecord replica{.id = ReplicaId::random(),
                          .volume = volume.id,
                          .pool = pool.id,
                          .state = ReplicaState::kReady};
    const auto membership = membership_of(volume.id, 9);
    MembershipRecord record{.volume = volume.id, .greatest_number = 9, .membership = membership};
    PermissionRecord permission{
        .resource = "vol/1", .generation = 4, .host = host.id, .incarnation = replica.id};
    PastHolderRecord past{
        .resource = "vol/1", .host = host.id, .incarnation = ReplicaId::random(), .generation = 3};
    AttachmentRecord attachment{.id = AttachmentId::random(),
                                .volume = volume.id,
                                .instance = instance.id,
                                .state = AttachmentState::kBusy,
                                .frontend = Frontend::kNbd,
                                .device = "/dev/sdf",
                                .ublk_number = 0,
                                .queues = 2,
                                .depth = 64,
                                .read_only = true,
                                .boot = true,
                                .delete_on_termination = true,
                                .created_ms = 8};
    TagRecord tag{.resource = volume.id.to_string(),
                  .key = "Name",
                  .value = "pg; DROP TABLE 'tags' \xe2\x9c\x93"};
    ClientTokenRecord token{
        .action = "CreateVolume", .token = "t", .fingerprint = "f", .resource = "vol"};
    JoinTokenRecord join{.id = JoinTokenId::random(),
                         .secret_hash = std::string(64, 'a'),
                         .ends_ms = 9,
                         .used_by = host.id,
                         .created_ms = 8};
    EventRecord event{
        .sequence = 5, .time_ms = 6, .resource = "", .kind = "k", .text = std::string("a\0b", 3)};
    ASSERT_TRUE(store().write([&](Transaction& tx) -> Result<void> {
        HostRecord copy = host;
        TRY(tx.put(copy));
        TRY(tx.put(instance));
        TRY(tx.put(pool));
        TRY(tx.put(volume));
        TRY(tx.put(replica));
        TRY(tx.put(record));
        TRY(tx.put(permission));
        TRY(tx.put(past));
        TRY(tx.put(attachment));
        TRY(tx.put(tag));
        TRY(tx.put(token));
        TRY(tx.put(join));
        return tx.put(event);
    }));
    reopen();
    EXPECT_EQ((*store().get<HostRecord>(host.id))->name, "alpha");
    EXPECT_TRUE((*store().get<InstanceRecord>(instance.id))->is_host);
    const PoolRecord pool_back = **store().get<PoolRecord>(pool.id);
    EXPECT_EQ(pool_back.size_bytes, std::uint64_t{1} << 62);
    EXPECT_EQ(pool_back.state, PoolState::kFailed);
    EXPECT_TRUE(pool_back.buffered);
    const VolumeRecord volume_back = **store().get<VolumeRecord>(volume.id);
    EXPECT_EQ(volume_back.state, VolumeState::kInUse);
    EXPECT_EQ(volume_back.block_bytes, 4096u);
    EXPECT_EQ(volume_back.durability, Durability::kWrite);
    EXPECT_EQ(volume_back.on_full, OnFull::kFail);
    EXPECT_EQ((*store().get<ReplicaRecord>(replica.id))->pool, pool.id);
    const MembershipRecord membership_back = **store().get<MembershipRecord>(volume.id);
    EXPECT_EQ(membership_back.membership, membership);
    EXPECT_EQ(membership_back.greatest_number, 9u);
    const PermissionRecord permission_back = **store().get<PermissionRecord>("vol/1");
    EXPECT_EQ(permission_back.incarnation, replica.id);
    EXPECT_EQ(permission_back.generation, 4u);
    EXPECT_EQ((*store().get<PastHolderRecord>("vol/1", host.id, past.incarnation))->generation, 3u);
    const AttachmentRecord attachment_back = **store().get<AttachmentRecord>(attachment.id);
    EXPECT_EQ(attachment_back.device, "/dev/sdf");
    EXPECT_EQ(attachment_back.ublk_number, 0u);
    EXPECT_EQ(attachment_back.frontend, Frontend::kNbd);
    EXPECT_EQ(attachment_back.state, AttachmentState::kBusy);
    EXPECT_TRUE(attachment_back.read_only && attachment_back.boot &&
                attachment_back.delete_on_termination);
    EXPECT_EQ((*store().get<TagRecord>(volume.id.to_string(), "Name"))->value, tag.value);
    EXPECT_EQ((*store().get<ClientTokenRecord>("CreateVolume", "t"))->fingerprint, "f");
    const JoinTokenRecord join_back = **store().get<JoinTokenRecord>(join.id);
    EXPECT_EQ(join_back.secret_hash, join.secret_hash);
    EXPECT_EQ(join_back.ends_ms, 9u);
    EXPECT_EQ(join_back.used_by, host.id);
    EXPECT_EQ((*store().get<EventRecord>(5))->text, event.text);
}

TEST_P(MetadataSuite, OptionalFieldsComeBackEmpty) {
    const HostRecord host = host_record("h");
    ASSERT_TRUE(put(host));
    const PoolRecord pool = pool_record(host.id, "/p");
    ASSERT_TRUE(put(pool));
    EXPECT_EQ((*store().get<PoolRecord>(pool.id))->size_bytes, std::nullopt);
    MembershipRecord retired{.volume = VolumeId::random(), .retired = true};
    ASSERT_TRUE(put(retired));
    EXPECT_EQ((*store().get<MembershipRecord>(retired.volume))->membership, std::nullopt);
}

TEST_P(MetadataSuite, NewRecordIsRefusedWhereTheKeyIsTaken) {
    ASSERT_TRUE(put(counter("c", 1)));
    EXPECT_EQ(put(counter("c", 2)).error().code, Errc::kExists);
    EXPECT_EQ((*store().get<CounterRecord>("c"))->value, 1u);
}

TEST_P(MetadataSuite, UniqueColumnsAreUnique) {
    const HostRecord host = host_record("h");
    ASSERT_TRUE(put(host));
    EXPECT_EQ(put(host_record("h")).error().code, Errc::kExists);
    ASSERT_TRUE(put(pool_record(host.id, "/p")));
    EXPECT_EQ(put(pool_record(host.id, "/p")).error().code, Errc::kExists);
    ASSERT_TRUE(put(InstanceRecord{.id = InstanceId::random(), .host = host.id, .is_host = true}));
    EXPECT_EQ(put(InstanceRecord{.id = InstanceId::random(), .host = host.id, .is_host = true})
                  .error()
                  .code,
              Errc::kExists);
    const InstanceRecord guest{.id = InstanceId::random(), .host = host.id};
    ASSERT_TRUE(put(guest));
    const VolumeRecord volume = volume_record();
    ASSERT_TRUE(put(volume));
    AttachmentRecord attachment{.id = AttachmentId::random(),
                                .volume = volume.id,
                                .instance = guest.id,
                                .device = "/dev/sdf"};
    ASSERT_TRUE(put(attachment));
    attachment.id = AttachmentId::random();
    EXPECT_EQ(put(attachment).error().code, Errc::kExists);
    attachment.device.reset();  // without a label there may be many
    EXPECT_TRUE(put(attachment));
    attachment.id = AttachmentId::random();
    EXPECT_TRUE(put(attachment));
}

TEST_P(MetadataSuite, ChangedRecordIsReplacedOnlyAtTheRevisionThatWasRead) {
    ASSERT_TRUE(put(counter("c", 1)));
    CounterRecord first = **store().get<CounterRecord>("c");
    CounterRecord second = first;
    first.value = 2;
    ASSERT_TRUE(put(first));
    second.value = 3;
    EXPECT_EQ(put(second).error().code, Errc::kConflict);
    EXPECT_EQ((*store().get<CounterRecord>("c"))->value, 2u);
}

TEST_P(MetadataSuite, RecordThatIsGoneIsNeitherReplacedNorErasedAgain) {
    ASSERT_TRUE(put(counter("c", 1)));
    const CounterRecord read = **store().get<CounterRecord>("c");
    ASSERT_TRUE(store().write([&](Transaction& tx) { return tx.erase(read); }));
    EXPECT_EQ(*store().get<CounterRecord>("c"), std::nullopt);
    EXPECT_EQ(put(read).error().code, Errc::kConflict);
    EXPECT_EQ(store().write([&](Transaction& tx) { return tx.erase(read); }).error().code,
              Errc::kConflict);
}

TEST_P(MetadataSuite, RevisionIsNotUsedAgainByARecordMadeAnew) {
    ASSERT_TRUE(put(counter("c", 1)));
    const CounterRecord before = **store().get<CounterRecord>("c");
    ASSERT_TRUE(store().write([&](Transaction& tx) { return tx.erase(before); }));
    ASSERT_TRUE(put(counter("c", 1)));
    EXPECT_GT((*store().get<CounterRecord>("c"))->revision, before.revision);
    EXPECT_EQ(store().write([&](Transaction& tx) { return tx.erase(before); }).error().code,
              Errc::kConflict);
    EXPECT_EQ(put(before).error().code, Errc::kConflict);
}

TEST_P(MetadataSuite, OneTransactionChangesARecordTwice) {
    CounterRecord record = counter("c", 1);
    ASSERT_TRUE(store().write([&](Transaction& tx) -> Result<void> {
        record = counter("c", 1);
        TRY(tx.put(record));
        record.value = 2;
        TRY(tx.put(record));
        TRY_ASSIGN(const auto seen, tx.get<CounterRecord>("c"));
        EXPECT_EQ(seen->value, 2u);  // it sees its own changes
        return {};
    }));
    EXPECT_EQ((*store().get<CounterRecord>("c"))->value, 2u);
}

TEST_P(MetadataSuite, TransactionThatFailsLeavesNothing) {
    ASSERT_TRUE(put(counter("old", 1)));
    const CounterRecord old = **store().get<CounterRecord>("old");
    const auto done = store().write([&](Transaction& tx) -> Result<void> {
        CounterRecord made = counter("new", 1);
        TRY(tx.put(made));
        TRY(tx.erase(old));
        return fail(Errc::kBusy, "given up");
    });
    EXPECT_EQ(done.error().code, Errc::kBusy);
    EXPECT_EQ(*store().get<CounterRecord>("new"), std::nullopt);
    EXPECT_EQ((*store().get<CounterRecord>("old"))->revision, old.revision);
    EXPECT_TRUE(put(counter("new", 2)));  // and the store goes on
}

TEST_P(MetadataSuite, RefusedRecordDoesNotEndItsTransaction) {
    ASSERT_TRUE(put(counter("c", 1)));
    ASSERT_TRUE(store().write([&](Transaction& tx) -> Result<void> {
        CounterRecord taken = counter("c", 2);
        EXPECT_EQ(tx.put(taken).error().code, Errc::kExists);
        CounterRecord other = counter("d", 3);
        return tx.put(other);
    }));
    EXPECT_EQ((*store().get<CounterRecord>("d"))->value, 3u);
}

TEST_P(MetadataSuite, ReadCannotChange) {
    const auto done = store().read([&](Transaction& tx) {
        CounterRecord record = counter("c", 1);
        return tx.put(record);
    });
    EXPECT_EQ(done.error().code, Errc::kReadOnly);
    EXPECT_EQ(*store().get<CounterRecord>("c"), std::nullopt);
}

TEST_P(MetadataSuite, RecordRefersOnlyToWhatIsThere) {
    const VolumeRecord volume = volume_record();
    const HostRecord host = host_record("h");
    const PoolRecord pool = pool_record(host.id, "/p");
    EXPECT_EQ(put(pool).error().code, Errc::kNotFound);
    ASSERT_TRUE(put(host));
    ASSERT_TRUE(put(pool));
    const ReplicaRecord replica{.id = ReplicaId::random(), .volume = volume.id, .pool = pool.id};
    EXPECT_EQ(put(replica).error().code, Errc::kNotFound);
    ASSERT_TRUE(put(volume));
    EXPECT_TRUE(put(replica));
}

TEST_P(MetadataSuite, RecordThatOthersReferToIsNotErased) {
    const HostRecord host = host_record("h");
    ASSERT_TRUE(put(host));
    ASSERT_TRUE(put(pool_record(host.id, "/p")));
    const HostRecord read = **store().get<HostRecord>(host.id);
    EXPECT_EQ(store().write([&](Transaction& tx) { return tx.erase(read); }).error().code,
              Errc::kBusy);
    const PoolRecord pool = store().list<PoolRecord>()->at(0);
    EXPECT_TRUE(store().write([&](Transaction& tx) -> Result<void> {
        TRY(tx.erase(pool));
        return tx.erase(read);
    }));
}

TEST_P(MetadataSuite, ValuesThatMakeNoSenseAreRefused) {
    VolumeRecord volume = volume_record();
    volume.size_bytes = 0;
    EXPECT_EQ(put(volume).error().code, Errc::kInvalidArgument);
    volume = volume_record();
    volume.block_bytes = 513;
    EXPECT_EQ(put(volume).error().code, Errc::kInvalidArgument);
    volume = volume_record();
    volume.replica_count = 4;
    EXPECT_EQ(put(volume).error().code, Errc::kInvalidArgument);
    volume = volume_record();
    volume.size_bytes = UINT64_MAX;  // has no form in a backend
    EXPECT_EQ(put(volume).error().code, Errc::kInvalidArgument);
    volume = volume_record();
    volume.id = VolumeId();
    EXPECT_EQ(put(volume).error().code, Errc::kInvalidArgument);
    EXPECT_EQ(put(host_record("")).error().code, Errc::kInvalidArgument);
    const HostRecord host = host_record("h");
    ASSERT_TRUE(put(host));
    PoolRecord pool = pool_record(host.id, "relative/path");
    EXPECT_EQ(put(pool).error().code, Errc::kInvalidArgument);
    pool = pool_record(host.id, "/p");
    pool.size_bytes = UINT64_MAX;
    EXPECT_EQ(put(pool).error().code, Errc::kInvalidArgument);
    EXPECT_TRUE(store().list<VolumeRecord>()->empty());
    EXPECT_TRUE(store().list<PoolRecord>()->empty());
}

TEST_P(MetadataSuite, ListIsOrderedFilteredAndPaged) {
    for (const char* key : {"b", "a", "c"}) {
        ASSERT_TRUE(put(TagRecord{.resource = "r1", .key = key, .value = "v"}));
        ASSERT_TRUE(put(TagRecord{.resource = "r2", .key = key, .value = key}));
    }
    const auto keys = [](const std::vector<TagRecord>& tags) {
        std::string text;
        for (const TagRecord& tag : tags) text += tag.resource + tag.key + " ";
        return text;
    };
    EXPECT_EQ(keys(*store().list<TagRecord>()), "r1a r1b r1c r2a r2b r2c ");
    EXPECT_EQ(keys(*store().list<TagRecord>(where("resource", "r2"))), "r2a r2b r2c ");
    Query query = where("key", "b");
    query.where.push_back({"value", to_value("b")});
    EXPECT_EQ(keys(*store().list<TagRecord>(query)), "r2b ");
    Query page{.where = {}, .after = {to_value("r1"), to_value("b")}, .limit = 2};
    EXPECT_EQ(keys(*store().list<TagRecord>(page)), "r1c r2a ");
    page.limit = 0;
    EXPECT_TRUE(store().list<TagRecord>(page)->empty());
}

TEST_P(MetadataSuite, ListFindsWhatIsUnset) {
    const HostRecord host = host_record("h");
    ASSERT_TRUE(put(host));
    PoolRecord capped = pool_record(host.id, "/a");
    capped.size_bytes = 1;
    ASSERT_TRUE(put(capped));
    const PoolRecord free = pool_record(host.id, "/b");
    ASSERT_TRUE(put(free));
    const auto found =
        *store().list<PoolRecord>(where("size_bytes", std::optional<std::uint64_t>()));
    ASSERT_EQ(found.size(), 1u);
    EXPECT_EQ(found[0].id, free.id);
}

TEST_P(MetadataSuite, CommittedIsThereAfterReopening) {
    for (std::uint64_t i = 0; i < 50; ++i) ASSERT_TRUE(put(counter("c" + std::to_string(i), i)));
    const std::uint64_t revision = (*store().get<CounterRecord>("c49"))->revision;
    reopen();
    EXPECT_EQ(store().list<CounterRecord>()->size(), 50u);
    ASSERT_TRUE(put(counter("after", 1)));
    EXPECT_GT((*store().get<CounterRecord>("after"))->revision, revision);
}

TEST_P(MetadataSuite, ConcurrentIncrementsAreAllCounted) {
    constexpr int kThreads = 8;
    constexpr int kRounds = 40;
    ASSERT_TRUE(put(counter("c", 0)));
    std::atomic<int> failures = 0;
    std::vector<std::jthread> threads;
    for (int t = 0; t < kThreads; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < kRounds; ++i) {
                const auto done = store().write([](Transaction& tx) -> Result<void> {
                    TRY_ASSIGN(auto record, tx.get<CounterRecord>("c"));
                    ++record->value;
                    return tx.put(*record);
                });
                if (!done) ++failures;
            }
        });
    }
    threads.clear();
    EXPECT_EQ(failures, 0);
    EXPECT_EQ((*store().get<CounterRecord>("c"))->value, std::uint64_t{kThreads * kRounds});
}

TEST_P(MetadataSuite, CompareAndSetHasOneWinnerARound) {
    constexpr int kThreads = 8;
    constexpr std::uint64_t kRounds = 20;
    ASSERT_TRUE(put(counter("c", 0)));
    for (std::uint64_t round = 1; round <= kRounds; ++round) {
        const CounterRecord read = **store().get<CounterRecord>("c");
        std::atomic<int> winners = 0;
        std::vector<std::jthread> threads;
        for (int t = 0; t < kThreads; ++t) {
            threads.emplace_back([&] {
                CounterRecord mine = read;
                mine.value = round;
                const auto done = store().write([&](Transaction& tx) { return tx.put(mine); });
                if (done)
                    ++winners;
                else
                    EXPECT_EQ(done.error().code, Errc::kConflict);
            });
        }
        threads.clear();
        ASSERT_EQ(winners, 1);
    }
}

TEST_P(MetadataSuite, ReaderSeesNoHalfOfATransaction) {
    ASSERT_TRUE(put(counter("a", 0)));
    ASSERT_TRUE(put(counter("b", 0)));
    std::atomic<bool> stop = false;
    std::atomic<int> torn = 0;
    std::jthread reader([&] {
        while (!stop) {
            const auto done = store().read([&](Transaction& tx) -> Result<void> {
                TRY_ASSIGN(const auto a, tx.get<CounterRecord>("a"));
                std::this_thread::yield();
                TRY_ASSIGN(const auto b, tx.get<CounterRecord>("b"));
                if (a->value != b->value) ++torn;
                return {};
            });
            if (!done) ++torn;
        }
    });
    for (int i = 0; i < 100; ++i) {
        ASSERT_TRUE(store().write([](Transaction& tx) -> Result<void> {
            for (const char* name : {"a", "b"}) {
                TRY_ASSIGN(auto record, tx.get<CounterRecord>(name));
                ++record->value;
                TRY(tx.put(*record));
            }
            return {};
        }));
    }
    stop = true;
    reader.join();
    EXPECT_EQ(torn, 0);
}

TEST_P(MetadataSuite, ReadAfterAWriteSeesIt) {
    for (std::uint64_t i = 1; i <= 50; ++i) {
        ASSERT_TRUE(put(counter("c" + std::to_string(i), i)));
        std::optional<CounterRecord> seen;
        std::jthread([&] { seen = *store().get<CounterRecord>("c" + std::to_string(i)); }).join();
        ASSERT_TRUE(seen && seen->value == i);
    }
}

TEST_P(MetadataSuite, EventsAreNumberedAndTheOldestGo) {
    ASSERT_TRUE(store().write([](Transaction& tx) -> Result<void> {
        for (std::uint64_t i = 0; i < kEventsKept + 3; ++i) {
            TRY(append_event(
                tx, EventRecord{.resource = "vol", .kind = "volume.created", .text = "x"}));
        }
        return {};
    }));
    const auto events = *store().list<EventRecord>();
    ASSERT_EQ(events.size(), kEventsKept);
    EXPECT_EQ(events.front().sequence, 4u);
    EXPECT_EQ(events.back().sequence, kEventsKept + 3);
    EXPECT_GT(events.back().time_ms, 0u);
}

}  // namespace ublkd::metadata::test
