// Which files SqliteStore opens and which it refuses, unchanged.
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include <fstream>
#include <iterator>

#include "metadata/migrations.h"
#include "metadata/records.h"
#include "metadata/sqlite_schema.h"
#include "metadata/sqlite_store.h"
#include "tests/unit/metadata/sqlite_fixture.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::metadata::test {
namespace {

/// Another program's view of a database.
void run_sql(const std::string& path, const std::string& sql) {
    sqlite3* connection = nullptr;
    ASSERT_EQ(sqlite3_open(path.c_str(), &connection), SQLITE_OK);
    char* message = nullptr;
    EXPECT_EQ(sqlite3_exec(connection, sql.c_str(), nullptr, nullptr, &message), SQLITE_OK)
        << message;
    sqlite3_close(connection);
}

std::string content(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

void write_at(const std::string& path, std::streamoff offset, const std::string& bytes) {
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(offset);
    file << bytes;
}

class SqliteOpen : public ::testing::Test {
  protected:
    const std::string& path() const { return path_; }
    Errc refusal() {
        const auto opened = SqliteStore::open(path_);
        EXPECT_FALSE(opened);
        return opened ? Errc::kExists : opened.error().code;
    }
    void make_with_records(int count) {
        auto store = *SqliteStore::open(path_);
        for (int i = 0; i < count; ++i) {
            ASSERT_TRUE(store->write([&](Transaction& tx) {
                TagRecord tag{
                    .resource = "r", .key = std::to_string(i), .value = std::string(500, 'v')};
                return tx.put(tag);
            }));
        }
    }

  private:
    TemporaryFolder folder_;
    std::string path_ = folder_.file("metadata.db");
};

TEST_F(SqliteOpen, NewDatabaseIsForItsOwnerAloneAndDurable) {
    make_with_records(1);
    struct stat status{};
    ASSERT_EQ(::stat(path().c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777u, 0600u);
    EXPECT_EQ(newest_schema(), static_cast<int>(migrations().size()));
}

TEST_F(SqliteOpen, EmptyFileBecomesADatabase) {
    std::ofstream(path()).flush();
    EXPECT_TRUE(SqliteStore::open(path()));
}

TEST_F(SqliteOpen, SecondProcessIsKeptOut) {
    auto store = *SqliteStore::open(path());
    EXPECT_EQ(refusal(), Errc::kBusy);
    store.reset();
    EXPECT_TRUE(SqliteStore::open(path()));
}

TEST_F(SqliteOpen, NewerSchemaIsRefusedUnchanged) {
    make_with_records(3);
    run_sql(path(), "PRAGMA user_version = " + std::to_string(newest_schema() + 1));
    const std::string before = content(path());
    const auto opened = SqliteStore::open(path());
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code, Errc::kUnsupported);
    EXPECT_NE(std::string(opened.error().where).find("newer ublkd"), std::string::npos);
    EXPECT_EQ(content(path()), before);
}

TEST_F(SqliteOpen, AnotherProgramsDatabaseIsRefusedUnchanged) {
    run_sql(path(), "CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)");
    const std::string before = content(path());
    EXPECT_EQ(refusal(), Errc::kUnsupported);
    EXPECT_EQ(content(path()), before);
}

TEST_F(SqliteOpen, FileThatIsNoDatabaseIsRefusedUnchanged) {
    std::ofstream(path()) << std::string(10'000, 'z');
    EXPECT_EQ(refusal(), Errc::kCorrupt);
    EXPECT_EQ(content(path()), std::string(10'000, 'z'));
}

TEST_F(SqliteOpen, DamagedPageIsFound) {
    make_with_records(200);
    ASSERT_GT(content(path()).size(), 20u * 4096u);
    for (int page = 8; page < 60; page += 3) write_at(path(), page * 4096, std::string(64, '\xff'));
    EXPECT_EQ(refusal(), Errc::kCorrupt);
}

TEST_F(SqliteOpen, CutOffDatabaseIsFound) {
    make_with_records(200);
    std::filesystem::resize_file(path(), 5 * 4096);
    EXPECT_EQ(refusal(), Errc::kCorrupt);
}

TEST_F(SqliteOpen, MissingFolderIsAnError) {
    EXPECT_EQ(SqliteStore::open(path() + "/no/such").error().code, Errc::kNotFound);
    EXPECT_FALSE(SqliteStore::open("/no/such/folder/metadata.db"));
}

TEST_F(SqliteOpen, RecordOfAnImpossibleFormIsCorruptNotGuessed) {
    auto store = *SqliteStore::open(path());
    ASSERT_TRUE(store->write([](Transaction& tx) {
        HostRecord host{.id = HostId(7), .name = "h"};
        return tx.put(host);
    }));
    store.reset();
    run_sql(path(), "UPDATE hosts SET id = 'host-nonsense'");
    store = *SqliteStore::open(path());
    EXPECT_EQ(store->list<HostRecord>().error().code, Errc::kCorrupt);
    // One bad record is no reason to lose the others.
    EXPECT_TRUE(store->list<VolumeRecord>());
}

TEST_F(SqliteOpen, MembershipWithAFlippedBitIsCorrupt) {
    auto store = *SqliteStore::open(path());
    replication::Membership membership;
    membership.volume = VolumeId(5);
    membership.number = 1;
    membership.primary = ReplicaId(6);
    membership.members = {{ReplicaId(6), HostId(1), PoolId(2)}};
    ASSERT_TRUE(store->write([&](Transaction& tx) {
        MembershipRecord record{
            .volume = VolumeId(5), .greatest_number = 1, .membership = membership};
        return tx.put(record);
    }));
    store.reset();
    run_sql(path(), "UPDATE memberships SET membership = x'0100'");
    store = *SqliteStore::open(path());
    EXPECT_EQ(store->get<MembershipRecord>(VolumeId(5)).error().code, Errc::kCorrupt);
}

TEST_F(SqliteOpen, CommitThatFailsChangesNothing) {
    auto store = *SqliteStore::open(path());
    const auto put_one = [&](const char* name) {
        return store->write([&](Transaction& tx) {
            CounterRecord record{.name = name, .value = 1};
            return tx.put(record);
        });
    };
    ASSERT_TRUE(faults::arm("metadata.before_commit=fail:28"));
    EXPECT_EQ(put_one("a").error().code, Errc::kNoSpace);
    faults::disarm_all();
    EXPECT_EQ(*store->get<CounterRecord>("a"), std::nullopt);
    EXPECT_TRUE(put_one("a"));
}

TEST_F(SqliteOpen, StrictTablesAndForeignKeysHoldAgainstOtherWriters) {
    make_with_records(1);
    sqlite3* connection = nullptr;
    ASSERT_EQ(sqlite3_open(path().c_str(), &connection), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(connection, "INSERT INTO counters VALUES ('c', 'text', 1)", nullptr,
                           nullptr, nullptr),
              SQLITE_CONSTRAINT);
    EXPECT_EQ(sqlite3_exec(connection, "UPDATE permissions SET state = 'perhaps'", nullptr, nullptr,
                           nullptr),
              SQLITE_OK);  // no rows yet
    EXPECT_EQ(sqlite3_exec(connection,
                           "INSERT INTO permissions VALUES ('r', 'perhaps', 1, 'h', 'i', 1, 1)",
                           nullptr, nullptr, nullptr),
              SQLITE_CONSTRAINT);
    sqlite3_close(connection);
}

}  // namespace
}  // namespace ublkd::metadata::test
