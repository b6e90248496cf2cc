// Several hosts on one etcd: what one commits between two steps of another, what of it is lost on
// the way, and what an etcd that is not the same any more is taken for. Each rule is shown to bite:
// with its switch off the same steps end wrong.
#include "tests/unit/metadata/etcd_fixture.h"
#include "tests/unit/metadata/etcd_relay.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::metadata::test {
namespace {

using std::chrono::milliseconds;

std::uint64_t value_of(MetadataStore& store, const std::string& name) {
    const auto found = store.get<CounterRecord>(name);
    EXPECT_TRUE(found) << to_string(found.error());
    return found && *found ? (*found)->value : 0;
}

Result<void> put_tags(MetadataStore& store, const std::string& resource, int from, int count) {
    return store.write([&](Transaction& tx) -> Result<void> {
        for (int i = from; i < from + count; ++i) {
            TagRecord tag{.resource = resource, .key = std::to_string(i), .value = "v"};
            TRY(tx.put(tag));
        }
        return {};
    });
}

class EtcdTest : public ::testing::Test {
  protected:
    void TearDown() override { faults::disarm_all(); }

    EtcdOptions options(const std::string& seen = "") const {
        return {.access = etcd_.access(),
                .seen_file = seen.empty() ? "" : folder_.file(seen),
                .deadline = milliseconds(20'000)};
    }
    std::uint16_t port() const {
        const std::string endpoint = etcd_.access().endpoints[0];
        return static_cast<std::uint16_t>(std::stoul(endpoint.substr(endpoint.rfind(':') + 1)));
    }
    EtcdOptions through(const EtcdRelay& relay, milliseconds deadline) const {
        EtcdOptions made = options();
        made.access.endpoints = {relay.endpoint()};
        made.deadline = deadline;
        return made;
    }

    TemporaryFolder folder_;
    EtcdProcess etcd_;
};

TEST_F(EtcdTest, HostsSeeWhatTheOthersChanged) {
    EtcdStore one(options());
    EtcdStore two(options());
    const auto keys = [](MetadataStore& store) { return store.list<TagRecord>()->size(); };
    EXPECT_EQ(keys(two), 0u);
    ASSERT_TRUE(put_tags(one, "r", 0, 100));
    EXPECT_EQ(keys(two), 100u);
    // One at a time, fewer and more than the state lists.
    for (const int count : {3, 40}) {
        const std::size_t before = keys(two);
        for (int i = 0; i < count; ++i) {
            ASSERT_TRUE(one.write([&](Transaction& tx) -> Result<void> {
                TRY_ASSIGN(const auto tags,
                           tx.list<TagRecord>({.where = {}, .after = {}, .limit = 1}));
                return tx.erase(tags[0]);
            }));
        }
        EXPECT_EQ(keys(two), before - static_cast<std::size_t>(count));
    }
    // More in one transaction than the state lists.
    ASSERT_TRUE(one.write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(const auto tags, tx.list<TagRecord>({.where = {}, .after = {}, .limit = 40}));
        for (const TagRecord& tag : tags) {
            TRY(tx.erase(tag));
        }
        return {};
    }));
    EXPECT_EQ(keys(two), 17u);
    // One that went and came again.
    const auto tag = one.list<TagRecord>()->front();
    ASSERT_TRUE(one.write([&](Transaction& tx) { return tx.erase(tag); }));
    ASSERT_TRUE(one.write([&](Transaction& tx) {
        TagRecord again = tag;
        again.revision = 0;
        again.value = "again";
        return tx.put(again);
    }));
    EXPECT_EQ((*two.get<TagRecord>("r", tag.key))->value, "again");
    // More than an answer has.
    for (int i = 0; i < 12; ++i) ASSERT_TRUE(put_tags(one, "s" + std::to_string(i), 0, 100));
    EXPECT_EQ(keys(two), keys(one));
    EtcdStore three(options());
    EXPECT_EQ(keys(three), keys(one));
    EXPECT_GT(keys(three), 1200u);
}

TEST_F(EtcdTest, UniqueNameMovesFromOneRowToAnother) {
    EtcdStore one(options());
    EtcdStore two(options());
    HostRecord a{.id = HostId::random(), .name = "a"};
    HostRecord b{.id = HostId::random(), .name = "b"};
    ASSERT_TRUE(one.write([&](Transaction& tx) { return tx.put(a); }));
    ASSERT_TRUE(one.write([&](Transaction& tx) { return tx.put(b); }));
    EXPECT_EQ(two.list<HostRecord>()->size(), 2u);
    const std::pair<HostId, const char*> kSteps[] = {{a.id, "c"}, {b.id, "a"}, {a.id, "b"}};
    for (const auto& [id, name] : kSteps) {
        HostRecord record = **one.get<HostRecord>(id);
        record.name = name;
        ASSERT_TRUE(one.write([&](Transaction& tx) { return tx.put(record); }));
    }
    EXPECT_EQ((*two.get<HostRecord>(a.id))->name, "b");
    EXPECT_EQ((*two.get<HostRecord>(b.id))->name, "a");
    HostRecord taken{.id = HostId::random(), .name = "a"};
    EXPECT_EQ(two.write([&](Transaction& tx) { return tx.put(taken); }).error().code,
              Errc::kExists);
}

TEST_F(EtcdTest, CommitBetweenTheJudgementOfAnotherAndItsTxnIsSeen) {
    EtcdStore one(options());
    EtcdStore two(options());
    for (const bool compared : {true, false}) {
        const std::string name = compared ? "on" : "off";
        ASSERT_TRUE(add_one(one, name));
        EXPECT_EQ(value_of(two, name), 1u);
        ASSERT_TRUE(faults::arm(std::string("etcd.before_commit=delay:500@1") +
                                (compared ? "" : ";rule.etcd_state_compared=off")));
        std::jthread slow([&] { EXPECT_TRUE(add_one(one, name)); });
        while (faults::hits("etcd.before_commit") == 0)
            std::this_thread::sleep_for(milliseconds(1));
        EXPECT_TRUE(add_one(two, name));
        slow.join();
        faults::disarm_all();
        EtcdStore three(options());
        EXPECT_EQ(value_of(three, name), compared ? 3u : 2u);
    }
}

TEST_F(EtcdTest, WhatWasReadAloneIsValidatedAtTheCommit) {
    EtcdStore one(options());
    EtcdStore two(options());
    const auto take_one = [](Transaction& tx, const std::string& from,
                             const std::function<void()>& then) -> Result<void> {
        TRY_ASSIGN(auto a, tx.get<CounterRecord>("a" + from.substr(1)));
        TRY_ASSIGN(auto b, tx.get<CounterRecord>("b" + from.substr(1)));
        then();
        if (a->value + b->value < 2) return fail(Errc::kNoSpace, "the last one stays");
        CounterRecord& mine = from[0] == 'a' ? *a : *b;
        --mine.value;
        return tx.put(mine);
    };
    for (const bool validated : {true, false}) {
        const std::string suffix = validated ? "1" : "0";
        ASSERT_TRUE(add_one(one, "a" + suffix));
        ASSERT_TRUE(add_one(one, "b" + suffix));
        if (!validated) {
            ASSERT_TRUE(faults::arm("rule.reads_validated=off"));
        }
        int runs = 0;
        const auto done = one.write([&](Transaction& tx) {
            return take_one(tx, "a" + suffix, [&] {
                if (++runs > 1) return;
                EXPECT_TRUE(two.write(
                    [&](Transaction& its) { return take_one(its, "b" + suffix, [] {}); }));
            });
        });
        faults::disarm_all();
        EXPECT_EQ(done.has_value(), !validated);
        EXPECT_EQ(value_of(two, "a" + suffix) + value_of(two, "b" + suffix), validated ? 1u : 0u);
    }
}

TEST_F(EtcdTest, RecordThatCameIntoAListOrLeftItIsSeenAtTheCommit) {
    EtcdStore one(options());
    EtcdStore two(options());
    for (const bool comes : {true, false}) {
        int runs = 0;
        ASSERT_TRUE(one.write([&](Transaction& tx) -> Result<void> {
            TRY_ASSIGN(const auto tags, tx.list<TagRecord>(where("resource", "r")));
            if (++runs == 1 && comes) {
                EXPECT_TRUE(put_tags(two, "r", 0, 1));
            } else if (runs == 1) {
                EXPECT_TRUE(two.write([&](Transaction& its) { return its.erase(tags[0]); }));
            }
            CounterRecord count = count_of(comes ? "came" : "left", tags.size());
            return tx.put(count);
        }));
        EXPECT_EQ(runs, 2);
        EXPECT_EQ(value_of(two, comes ? "came" : "left"), comes ? 1u : 0u);
    }
}

TEST_F(EtcdTest, CommitWhoseAnswerIsLostIsFoundOut) {
    EtcdRelay relay(port());
    EtcdStore store(through(relay, milliseconds(20'000)));
    for (std::uint64_t i = 1; i <= 5; ++i) {
        EXPECT_EQ(value_of(store, "c"), i - 1);
        relay.lose_answer();
        const auto done = add_one(store, "c");
        EXPECT_TRUE(done) << to_string(done.error());
    }
    EXPECT_EQ(value_of(store, "c"), 5u);
}

TEST_F(EtcdTest, CommitThatWasGivenUpIsOverWhenItIsReadAgain) {
    for (const bool over : {true, false}) {
        EtcdRelay relay(port());
        EtcdStore store(through(relay, milliseconds(1'000)));
        const std::string name = over ? "on" : "off";
        ASSERT_TRUE(add_one(store, name));
        if (!over) {
            ASSERT_TRUE(faults::arm("rule.etcd_lost_is_over=off"));
        }
        relay.hold(true);
        EXPECT_EQ(add_one(store, name).error().code, Errc::kTimedOut);
        relay.wait_for_held();
        relay.hold(false);
        const std::uint64_t read = value_of(store, name);
        EXPECT_EQ(read, 1u);
        relay.let_go();
        EXPECT_EQ(value_of(store, name), over ? read : read + 1);
        faults::disarm_all();
    }
}

TEST_F(EtcdTest, CommitOfTheProcessBeforeIsOverToo) {
    EtcdRelay relay(port());
    const EtcdOptions slow = through(relay, milliseconds(1'000));
    {
        EtcdStore store(slow);
        ASSERT_TRUE(add_one(store, "c"));
        relay.hold(true);
        EXPECT_EQ(add_one(store, "c").error().code, Errc::kTimedOut);
        relay.wait_for_held();
        relay.hold(false);
    }
    EtcdStore next(options());
    EXPECT_EQ(value_of(next, "c"), 1u);
    relay.let_go();
    EXPECT_EQ(value_of(next, "c"), 1u);
}

TEST_F(EtcdTest, CompactionTakesNothingAway) {
    EtcdStore one(options());
    EtcdStore two(options());
    for (int i = 0; i < 12; ++i) ASSERT_TRUE(put_tags(one, std::to_string(i), 0, 100));
    EXPECT_EQ(two.list<TagRecord>()->size(), 1200u);
    const auto compact = [&] {
        const std::string fields = etcd_.control("endpoint status -w fields");
        const auto at = fields.find("\"Revision\" : ") + 13;
        etcd_.control("compact " + fields.substr(at, fields.find('\n', at) - at));
    };
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(add_one(one, "c"));
    compact();
    EXPECT_EQ(value_of(two, "c"), 20u);
    // While a host that is new reads page by page.
    for (int i = 0; i < 10; ++i) {
        std::jthread compacting([&] {
            for (int times = 0; times < 3; ++times) {
                EXPECT_TRUE(add_one(one, "d"));
                compact();
            }
        });
        EtcdStore three(options());
        const auto tags = three.list<TagRecord>();
        EXPECT_EQ(tags ? tags->size() : 0, 1200u);
    }
}

TEST_F(EtcdTest, OlderSnapshotThatWasRestoredIsRefused) {
    EtcdStore running(options());
    EXPECT_TRUE(add_one(running, "c"));
    etcd_.control("snapshot save " + etcd_.file("snapshot"));
    {
        EtcdStore seeing(options("seen"));
        ASSERT_TRUE(add_one(seeing, "c"));
        EXPECT_EQ(value_of(running, "c"), 2u);
    }
    etcd_.restore(etcd_.file("snapshot"), "etcd-cluster");  // of the same id
    EXPECT_EQ(running.get<CounterRecord>("c").error().code, Errc::kStale);
    EXPECT_EQ(add_one(running, "c").error().code, Errc::kStale);
    {
        EtcdStore seeing(options("seen"));
        EXPECT_EQ(seeing.get<CounterRecord>("c").error().code, Errc::kStale);
        EXPECT_EQ(add_one(seeing, "c").error().code, Errc::kStale);
    }
    // Others go on with it, past all that was seen: its past is another one all the same.
    {
        EtcdStore unaware(options());
        for (int i = 0; i < 20; ++i) ASSERT_TRUE(add_one(unaware, "d"));
        EXPECT_EQ(value_of(unaware, "c"), 1u);
    }
    EXPECT_EQ(running.get<CounterRecord>("c").error().code, Errc::kStale);
    EtcdStore seeing(options("seen"));
    EXPECT_EQ(seeing.get<CounterRecord>("c").error().code, Errc::kStale);
    ASSERT_TRUE(faults::arm("rule.etcd_not_restored=off"));
    EXPECT_EQ(value_of(seeing, "c"), 1u);  // it was 2
}

TEST_F(EtcdTest, AnotherClusterIsRefusedUntilItsFileIsRemoved) {
    {
        EtcdStore store(options("seen"));
        ASSERT_TRUE(add_one(store, "c"));
    }
    etcd_.control("snapshot save " + etcd_.file("snapshot"));
    etcd_.restore(etcd_.file("snapshot"), "another");
    {
        EtcdStore store(options("seen"));
        EXPECT_EQ(store.get<CounterRecord>("c").error().code, Errc::kStale);
        EXPECT_EQ(EtcdRows::make(options("seen")).error().code, Errc::kBusy);
    }
    std::filesystem::remove(folder_.file("seen"));
    EtcdStore store(options("seen"));
    EXPECT_EQ(value_of(store, "c"), 1u);
}

TEST_F(EtcdTest, WhatIsNoneOfOursIsRefused) {
    const EtcdOptions given = options();
    EtcdStore store(given);
    ASSERT_TRUE(add_one(store, "c"));
    const auto put_raw = [&](const std::string& key, const std::string& value) {
        etcd_.control("put ublkd/" + key + " '" + value + "'");
    };
    // What is put by others is seen with the next state.
    const auto put_row = [&](const std::string& key, const std::string& value) {
        put_raw(key, value);
        EXPECT_TRUE(add_one(store, "c"));
    };
    const auto erase_row = [&](const std::string& key) {
        etcd_.control("del ublkd/" + key);
        EXPECT_TRUE(add_one(store, "c"));
    };
    const auto read_anew = [&] { return EtcdStore(given).get<CounterRecord>("c"); };
    for (const auto& [key, value] :
         {std::pair("rows/counters/x", "{}"), std::pair("rows/counters/x", "no JSON"),
          std::pair("rows/nothing/x", "{\"name\": \"x\", \"value\": 1}"),
          std::pair("rows/counters/x", "{\"name\": \"y\", \"value\": 1}"),
          std::pair("rows/pools/x", "{\"id\": \"x\"}")}) {
        put_row(key, value);
        const auto read = read_anew();
        ASSERT_FALSE(read) << key << value;
        EXPECT_EQ(read.error().code, Errc::kCorrupt) << key << value;
        erase_row(key);
    }
    // Whole, and yet refused.
    put_row("rows/tags/r/k", "{\"resource\": \"r\", \"key\": \"k\", \"value\": null}");
    const auto read = read_anew();
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code, Errc::kCorrupt);
    erase_row("rows/tags/r/k");
    ASSERT_TRUE(read_anew());
    for (const auto& [value, code] :
         {std::pair("", Errc::kCorrupt), std::pair("{\"Format\": 1}", Errc::kCorrupt),
          std::pair("{\"Format\": 2, \"Schema\": 7}", Errc::kUnsupported),
          std::pair("{\"Format\": 1, \"Schema\": 1000}", Errc::kUnsupported)}) {
        put_raw("state", value);
        const auto of_state = read_anew();
        ASSERT_FALSE(of_state) << value;
        EXPECT_EQ(of_state.error().code, code) << value;
    }
}

TEST_F(EtcdTest, TooMuchForOneTransactionIsSaid) {
    EtcdStore store(options());
    EXPECT_TRUE(put_tags(store, "few", 0, 100));
    EXPECT_EQ(put_tags(store, "many", 0, 200).error().code, Errc::kExhausted);
    const auto huge = store.write([&](Transaction& tx) {
        CounterRecord record = count_of(std::string(4'000'000, 'x'), 1);
        return tx.put(record);
    });
    EXPECT_EQ(huge.error().code, Errc::kExhausted);
    EXPECT_TRUE(add_one(store, "c"));
    EXPECT_EQ(store.list<TagRecord>()->size(), 100u);
}

}  // namespace
}  // namespace ublkd::metadata::test
