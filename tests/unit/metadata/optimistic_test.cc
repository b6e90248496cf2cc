// OptimisticStore over rows of this process: the conformance suite, and what others may do between
// two calls of one transaction. That is brought about without luck: `work` itself lets another
// store of the same rows commit, in its first run.
#include <gtest/gtest.h>

#include <functional>

#include "metadata/local_rows.h"
#include "metadata/optimistic_store.h"
#include "tests/unit/metadata/local_place.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::metadata::test {

INSTANTIATE_TEST_SUITE_P(OptimisticLocal, MetadataSuite, ::testing::Values(&make_local_place));

namespace {

CounterRecord counter(std::string name, std::uint64_t value) {
    return CounterRecord{.name = std::move(name), .value = value};
}

class OptimisticTest : public ::testing::Test {
  protected:
    void TearDown() override { faults::disarm_all(); }

    void set(const std::string& name, std::uint64_t value) {
        ASSERT_TRUE(other_.write([&](Transaction& tx) -> Result<void> {
            TRY_ASSIGN(const auto found, tx.get<CounterRecord>(name));
            CounterRecord record = found.value_or(counter(name, 0));
            record.value = value;
            return tx.put(record);
        }));
    }
    std::uint64_t value(const std::string& name) {
        return (*other_.get<CounterRecord>(name))->value;
    }
    template <class Record>
    Result<void> put(Record record) {
        return other_.write([&](Transaction& tx) { return tx.put(record); });
    }

    TemporaryFolder folder_;
    std::unique_ptr<SqliteStore> sqlite_ = *SqliteStore::open(folder_.file("metadata.db"));
    LocalRows rows_{sqlite_.get()};
    OptimisticStore store_{&rows_};
    OptimisticStore other_{&rows_};
};

/// Two that each may go below zero only where the other does not: both read both.
Result<void> take_one(Transaction& tx, const std::string& from, const std::function<void()>& then) {
    TRY_ASSIGN(auto a, tx.get<CounterRecord>("a"));
    TRY_ASSIGN(auto b, tx.get<CounterRecord>("b"));
    then();
    if (a->value + b->value < 2) return fail(Errc::kNoSpace, "the last one stays");
    CounterRecord& mine = from == "a" ? *a : *b;
    --mine.value;
    return tx.put(mine);
}

TEST_F(OptimisticTest, WhatWasReadAloneIsValidatedAtTheCommit) {
    for (const bool validated : {true, false}) {
        if (!validated) {
            ASSERT_TRUE(faults::arm("rule.reads_validated=off"));
        }
        set("a", 1);
        set("b", 1);
        int runs = 0;
        const auto done = store_.write([&](Transaction& tx) {
            return take_one(tx, "a", [&] {
                if (++runs > 1) return;
                ASSERT_TRUE(
                    other_.write([&](Transaction& its) { return take_one(its, "b", [] {}); }));
            });
        });
        if (validated) {
            EXPECT_EQ(done.error().code, Errc::kNoSpace);
            EXPECT_EQ(runs, 2);
        } else {
            EXPECT_TRUE(done);
        }
        EXPECT_EQ(value("a") + value("b"), validated ? 1u : 0u);
    }
}

TEST_F(OptimisticTest, RecordThatCameIntoAListIsSeenAtTheCommit) {
    int runs = 0;
    ASSERT_TRUE(store_.write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(const auto tags, tx.list<TagRecord>(where("resource", "r")));
        if (++runs == 1) {
            EXPECT_TRUE(put(TagRecord{.resource = "r", .key = "k", .value = "v"}));
        }
        CounterRecord count = counter("tags", tags.size());
        return tx.put(count);
    }));
    EXPECT_EQ(runs, 2);
    EXPECT_EQ(value("tags"), 1u);
    // One in another list is not.
    runs = 0;
    ASSERT_TRUE(store_.write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(const auto tags, tx.list<TagRecord>(where("resource", "r")));
        if (++runs == 1) {
            EXPECT_TRUE(put(TagRecord{.resource = "s", .key = "k", .value = "v"}));
        }
        CounterRecord count = counter("others", tags.size());
        return tx.put(count);
    }));
    EXPECT_EQ(runs, 1);
}

TEST_F(OptimisticTest, NoRunSeesTwoStates) {
    for (const bool one_state : {true, false}) {
        if (!one_state) {
            ASSERT_TRUE(faults::arm("rule.reads_of_one_state=off"));
        }
        set("a", 1);
        set("b", 1);
        int torn = 0;
        int runs = 0;
        for (const bool writing : {false, true}) {
            runs = 0;
            const auto work = [&](Transaction& tx) -> Result<void> {
                TRY_ASSIGN(const auto a, tx.get<CounterRecord>("a"));
                if (++runs == 1) {
                    set("a", a->value + 1);
                    set("b", a->value + 1);
                }
                TRY_ASSIGN(const auto b, tx.get<CounterRecord>("b"));
                if (a->value != b->value) ++torn;
                return {};
            };
            ASSERT_TRUE(writing ? store_.write(work) : store_.read(work));
        }
        EXPECT_EQ(torn, one_state ? 0 : 2);
        EXPECT_EQ(runs, one_state ? 2 : 1);
    }
}

TEST_F(OptimisticTest, WhatOthersDoElsewhereRepeatsNothing) {
    set("a", 1);
    int runs = 0;
    ASSERT_TRUE(store_.write([&](Transaction& tx) -> Result<void> {
        ++runs;
        TRY_ASSIGN(auto a, tx.get<CounterRecord>("a"));
        set("x", static_cast<std::uint64_t>(runs));
        TRY_ASSIGN(const auto y, tx.get<CounterRecord>("y"));
        EXPECT_FALSE(y);
        ++a->value;
        return tx.put(*a);
    }));
    EXPECT_EQ(runs, 1);
    EXPECT_EQ(value("a"), 2u);
}

TEST_F(OptimisticTest, RecordOfTheCallerIsPutAgainWhereTheFirstRunWasInVain) {
    set("a", 1);
    int runs = 0;
    HostRecord host{.id = HostId::random(), .name = "one"};  // made outside of the work
    ASSERT_TRUE(store_.write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(auto a, tx.get<CounterRecord>("a"));
        TRY(tx.put(host));
        if (++runs == 1) set("a", 5);
        ++a->value;
        return tx.put(*a);
    }));
    EXPECT_EQ(runs, 2);
    EXPECT_EQ(value("a"), 6u);
    EXPECT_EQ((*other_.get<HostRecord>(host.id))->name, "one");
    // So is a change, unless another has changed it meanwhile.
    for (const bool changed : {false, true}) {
        HostRecord read = **store_.get<HostRecord>(host.id);
        read.name = changed ? "three" : "two";
        runs = 0;
        const auto done = store_.write([&](Transaction& tx) -> Result<void> {
            ++runs;
            TRY_ASSIGN(const auto a, tx.get<CounterRecord>("a"));
            TRY(tx.put(read));
            if (runs == 1) {
                set("a", a->value + 1);
                if (changed) {
                    HostRecord its = **other_.get<HostRecord>(host.id);
                    its.name = "other";
                    EXPECT_TRUE(put(its));
                }
            }
            return {};
        });
        EXPECT_EQ(runs, 2);
        if (changed) {
            EXPECT_EQ(done.error().code, Errc::kConflict);
        } else {
            EXPECT_TRUE(done);
        }
        EXPECT_EQ((*other_.get<HostRecord>(host.id))->name, changed ? "other" : "two");
    }
}

TEST_F(OptimisticTest, RevisionOfAnEarlierTransactionPutsNothing) {
    HostRecord host{.id = HostId::random(), .name = "one"};
    ASSERT_TRUE(store_.write([&](Transaction& tx) { return tx.put(host); }));
    host.name = "two";
    EXPECT_FALSE(store_.write([&](Transaction& tx) { return tx.put(host); }));
    CounterRecord record = counter("c", 1);
    ASSERT_TRUE(store_.write([&](Transaction& tx) { return tx.put(record); }));
    record.value = 2;
    EXPECT_FALSE(store_.write([&](Transaction& tx) { return tx.put(record); }));
    EXPECT_EQ((*other_.get<HostRecord>(host.id))->name, "one");
    EXPECT_EQ(value("c"), 1u);
}

TEST_F(OptimisticTest, RefusalThatDoesNotHoldAtTheCommitRepeatsTheWork) {
    HostRecord taken{.id = HostId::random(), .name = "name"};
    ASSERT_TRUE(put(taken));
    int runs = 0;
    ASSERT_TRUE(store_.write([&](Transaction& tx) -> Result<void> {
        HostRecord host{.id = HostId::random(), .name = "name"};
        const auto first = tx.put(host);
        if (++runs == 1) {
            EXPECT_EQ(first.error().code, Errc::kExists);
            const HostRecord stored = **other_.get<HostRecord>(taken.id);
            EXPECT_TRUE(other_.write([&](Transaction& its) { return its.erase(stored); }));
        }
        if (first) return {};
        host.name = "second choice";
        return tx.put(host);
    }));
    EXPECT_EQ(runs, 2);
    const auto hosts = *other_.list<HostRecord>();
    ASSERT_EQ(hosts.size(), 1u);
    EXPECT_EQ(hosts[0].name, "name");
}

TEST_F(OptimisticTest, ReferenceThatWentMeanwhileIsRefusedInTheNextRun) {
    HostRecord host{.id = HostId::random(), .name = "h"};
    ASSERT_TRUE(put(host));
    int runs = 0;
    const auto done = store_.write([&](Transaction& tx) -> Result<void> {
        ++runs;
        PoolRecord pool{.id = PoolId::random(), .host = host.id, .path = "/p", .domain = "d"};
        TRY(tx.put(pool));
        if (runs == 1) {
            const HostRecord stored = **other_.get<HostRecord>(host.id);
            EXPECT_TRUE(other_.write([&](Transaction& its) { return its.erase(stored); }));
        }
        return {};
    });
    EXPECT_EQ(done.error().code, Errc::kNotFound);
    EXPECT_EQ(runs, 2);
}

TEST_F(OptimisticTest, ErrorIsBelievedOnlyOfOneState) {
    set("a", 1);
    int runs = 0;
    const auto done = store_.read([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(const auto a, tx.get<CounterRecord>("a"));
        if (++runs == 1) {
            set("a", 2);
            set("b", 2);
        }
        const auto b = tx.get<CounterRecord>("b");
        if (!b || !*b) return fail(Errc::kCorrupt, "b goes with a");  // swallows what get() said
        return {};
    });
    EXPECT_TRUE(done);
    EXPECT_EQ(runs, 2);
}

TEST_F(OptimisticTest, OwnChangesAreSeenByListsOfAnyForm) {
    for (const char* key : {"b", "d", "f"})
        ASSERT_TRUE(put(TagRecord{.resource = "r", .key = key, .value = "old"}));
    const auto keys = [](const std::vector<TagRecord>& tags) {
        std::string text;
        for (const TagRecord& tag : tags) text += tag.key;
        return text;
    };
    ASSERT_TRUE(store_.write([&](Transaction& tx) -> Result<void> {
        for (const char* key : {"a", "e", "g"}) {
            TagRecord made{.resource = "r", .key = key, .value = "new"};
            TRY(tx.put(made));
        }
        TRY_ASSIGN(const auto b, tx.get<TagRecord>("r", "b"));
        TRY(tx.erase(*b));
        TRY_ASSIGN(auto d, tx.get<TagRecord>("r", "d"));
        d->value = "new";
        TRY(tx.put(*d));
        EXPECT_FALSE(*tx.get<TagRecord>("r", "b"));
        EXPECT_EQ((*tx.get<TagRecord>("r", "d"))->value, "new");
        EXPECT_EQ(keys(*tx.list<TagRecord>()), "adefg");
        EXPECT_EQ(keys(*tx.list<TagRecord>(where("value", "old"))), "f");
        EXPECT_EQ(keys(*tx.list<TagRecord>(where("value", "new"))), "adeg");
        Query page = where("resource", "r");
        page.limit = 2;
        EXPECT_EQ(keys(*tx.list<TagRecord>(page)), "ad");
        page.after = {to_value("r"), to_value("d")};
        EXPECT_EQ(keys(*tx.list<TagRecord>(page)), "ef");
        page.limit = 0;
        EXPECT_EQ(keys(*tx.list<TagRecord>(page)), "");
        TRY_ASSIGN(const auto e, tx.get<TagRecord>("r", "e"));
        TRY(tx.erase(*e));  // what it made itself
        EXPECT_EQ(tx.erase(*e).error().code, Errc::kConflict);
        EXPECT_EQ(keys(*tx.list<TagRecord>()), "adfg");
        return {};
    }));
    EXPECT_EQ(keys(*other_.list<TagRecord>()), "adfg");
}

TEST_F(OptimisticTest, WhoIsOvertakenForEverIsToldSo) {
    OptimisticStore hasty(&rows_, {.repeat_for = std::chrono::milliseconds(50)});
    set("a", 0);
    std::uint64_t runs = 0;
    const auto done = hasty.write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(auto a, tx.get<CounterRecord>("a"));
        set("a", ++runs);
        a->value = 1000;
        return tx.put(*a);
    });
    EXPECT_EQ(done.error().code, Errc::kBusy);
    EXPECT_GT(runs, 1u);
    EXPECT_EQ(value("a"), runs);
}

TEST_F(OptimisticTest, StoreThatWentBackInTimeIsNotRead) {
    set("a", 1);
    EXPECT_EQ((*store_.get<CounterRecord>("a"))->value, 1u);
    TemporaryFolder restored;
    const auto older = *SqliteStore::open(restored.file("metadata.db"));
    struct Switch : RowService {
        RowService* to = nullptr;
        Result<Rows> list(const Table& table, const Query& query) override {
            return to->list(table, query);
        }
        Result<Trial> try_last(const std::vector<Change>& changes) override {
            return to->try_last(changes);
        }
        Result<Checked> check(const Observed& observed) override { return to->check(observed); }
        Result<Checked> commit(const Observed& observed) override { return to->commit(observed); }
    } service;
    LocalRows behind(older.get());
    service.to = &rows_;
    OptimisticStore store(&service);
    ASSERT_TRUE(store.get<CounterRecord>("a"));
    service.to = &behind;
    EXPECT_EQ(store.get<CounterRecord>("a").error().code, Errc::kStale);
    EXPECT_EQ(store
                  .write([](Transaction& tx) {
                      HostRecord host{.id = HostId::random(), .name = "h"};
                      return tx.put(host);
                  })
                  .error()
                  .code,
              Errc::kStale);
    EXPECT_TRUE(older->list<HostRecord>()->empty());
    service.to = &rows_;
    EXPECT_TRUE(store.get<CounterRecord>("a"));
}

TEST_F(OptimisticTest, LostAnswerOfACommitIsAnErrorAndMakesNothingTwice) {
    set("a", 1);
    const auto add_one = [](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(auto a, tx.get<CounterRecord>("a"));
        ++a->value;
        return tx.put(*a);
    };
    ASSERT_TRUE(faults::arm("rows.after_commit=fail"));
    EXPECT_EQ(store_.write(add_one).error().code, Errc::kIo);
    faults::disarm_all();
    EXPECT_EQ(value("a"), 2u);
    ASSERT_TRUE(faults::arm("rows.before_commit=fail"));
    EXPECT_EQ(store_.write(add_one).error().code, Errc::kIo);
    faults::disarm_all();
    EXPECT_EQ(value("a"), 2u);
}

TEST_F(OptimisticTest, NothingButTheirKeysRefusesRecordsOfPlainTables) {
    // What OptimisticStore does not ask the far side about (Table::plain).
    EXPECT_TRUE(put(CounterRecord{}));
    EXPECT_TRUE(put(EventRecord{}));
    EXPECT_TRUE(put(counter(std::string("\0\xff", 2), INT64_MAX)));
    EXPECT_TRUE(put(EventRecord{.sequence = INT64_MAX,
                                .time_ms = INT64_MAX,
                                .resource = "\xff",
                                .kind = std::string(100'000, 'k'),
                                .text = std::string("\0", 1)}));
    for (const bool plain : {table_of<CounterRecord>().plain, table_of<EventRecord>().plain})
        EXPECT_TRUE(plain);
    EXPECT_FALSE(table_of<HostRecord>().plain);
}

TEST_F(OptimisticTest, TakenKeyOfWhatIsAppendedIsFoundAtTheCommit) {
    ASSERT_TRUE(put(EventRecord{.sequence = 7, .text = "first"}));
    int runs = 0;
    const auto done = store_.write([&](Transaction& tx) {
        ++runs;
        EventRecord event{.sequence = 7, .text = "second"};
        return tx.put(event);
    });
    EXPECT_EQ(done.error().code, Errc::kExists);
    EXPECT_EQ(runs, 2);
    EXPECT_EQ((*other_.get<EventRecord>(7))->text, "first");
    runs = 0;
    const auto twice = store_.write([&](Transaction& tx) -> Result<void> {
        ++runs;
        EventRecord event{.sequence = 8};
        TRY(tx.put(event));
        EventRecord again{.sequence = 8};
        return tx.put(again);
    });
    EXPECT_EQ(twice.error().code, Errc::kExists);
    EXPECT_EQ(runs, 1);  // its own is known
    EXPECT_EQ(*other_.get<EventRecord>(8), std::nullopt);
}

}  // namespace
}  // namespace ublkd::metadata::test
