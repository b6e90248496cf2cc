// Rows as JSON: all values come back as they were, and whatever else somebody sends is refused with
// a message and changes nothing. Method: each field of a good request is replaced by each kind of
// misfit; then good requests are damaged at random (the seed is printed), through the real routes
// over a real store.
#include "ublkd/api/row_json.h"

#include <gtest/gtest.h>

#include <functional>

#include "metadata/local_rows.h"
#include "tests/suites/seed.h"
#include "tests/unit/metadata/sqlite_fixture.h"
#include "ublkd/api/route_table.h"
#include "ublkd/api/routes_rows.h"

namespace ublkd::metadata::test {
namespace {

using api::Json;

const Table& hosts() { return table_of<HostRecord>(); }
const Table& past_holders() { return table_of<PastHolderRecord>(); }

Row row_of(std::vector<Value> values, std::uint64_t revision) {
    return Row{std::move(values), revision};
}

Observed some_observed() {
    Observed observed;
    observed.reads.push_back(
        {&hosts(), {.where = {{"id", "host-1"}}, .after = {}, .limit = SIZE_MAX}, {}});
    observed.reads.push_back({&past_holders(),
                              {.where = {{"resource", "r"}, {"delete_confirmed", std::int64_t{0}}},
                               .after = {"r", "h", Value()},
                               .limit = 3},
                              {{{"r", "h", "i"}, 7}, {{"r", "h", "j"}, 8}}});
    observed.changes.push_back({Change::Kind::kPut, &hosts(),
                                row_of({"host-1", "n", std::int64_t{5}, ""}, 0), std::nullopt});
    observed.changes.push_back({Change::Kind::kPut, &hosts(),
                                row_of({"host-1", "m", std::int64_t{5}, ""}, kOwnRevision),
                                Errc::kExists});
    observed.changes.push_back(
        {Change::Kind::kErase, &past_holders(),
         row_of({"r", "h", "i", std::int64_t{1}, std::int64_t{0}, std::int64_t{0}}, 9),
         std::nullopt});
    return observed;
}

TEST(RowJson, EveryKindOfValueComesBack) {
    std::string all_bytes;
    for (int byte = 0; byte < 256; ++byte) all_bytes += static_cast<char>(byte);
    const std::vector<Value> values = {Value(),
                                       std::int64_t{0},
                                       std::int64_t{INT64_MAX},
                                       std::string(),
                                       std::string("a\0\"\\\n\x7f", 6),
                                       std::string("\xe2\x9c\x93"),
                                       all_bytes,
                                       Bytes(),
                                       Bytes{std::byte{0}, std::byte{255}, std::byte{16}}};
    for (const Value& value : values) {
        const Rows rows{.rows = {row_of({"k", value, std::int64_t{1}, ""}, 3)},
                        .state = UINT64_MAX};
        const auto sent = Json::parse(api::rows_json(hosts(), rows).dump());
        ASSERT_TRUE(sent);
        const auto back = api::read_rows(hosts(), *sent);
        ASSERT_TRUE(back && *back) << back.error().message;
        EXPECT_EQ((*back)->state, UINT64_MAX);
        ASSERT_EQ((*back)->rows.size(), 1u);
        EXPECT_EQ((*back)->rows[0].values, rows.rows[0].values);
        EXPECT_EQ((*back)->rows[0].revision, 3u);
    }
}

TEST(RowJson, WhatWasObservedComesBack) {
    const Observed observed = some_observed();
    const auto back = api::read_observed(*Json::parse(api::observed_json(observed).dump()));
    ASSERT_TRUE(back) << back.error().message;
    ASSERT_EQ(back->reads.size(), 2u);
    EXPECT_EQ(back->reads[1].table, &past_holders());
    EXPECT_EQ(back->reads[1].query.after, observed.reads[1].query.after);
    EXPECT_EQ(back->reads[1].query.limit, 3u);
    EXPECT_EQ(back->reads[0].query.limit, SIZE_MAX);
    EXPECT_STREQ(back->reads[1].query.where[1].column, "delete_confirmed");
    EXPECT_EQ(back->reads[1].marks, observed.reads[1].marks);
    ASSERT_EQ(back->changes.size(), 3u);
    EXPECT_EQ(back->changes[0].row.values, observed.changes[0].row.values);
    EXPECT_EQ(back->changes[1].row.revision, kOwnRevision);
    EXPECT_EQ(back->changes[1].refused, Errc::kExists);
    EXPECT_EQ(back->changes[2].kind, Change::Kind::kErase);
    EXPECT_EQ(back->changes[2].row.values.size(), 3u);  // the key
}

TEST(RowJson, ErrorsOfTheStoreComeBack) {
    const auto error = fail(Errc::kNoSpace, "here", ENOSPC);
    const auto back = api::read_checked(api::checked_json(Result<Checked>(error)));
    ASSERT_TRUE(back);
    EXPECT_EQ(back->error(), error.error());
    const Trial trial{{true, 4}, Errc::kNotFound};
    const auto tried = api::read_trial(api::trial_json(trial));
    ASSERT_TRUE(tried && *tried);
    EXPECT_TRUE((*tried)->before.same);
    EXPECT_EQ((*tried)->refused, Errc::kNotFound);
}

const std::vector<Json>& misfits() {
    static const std::vector<Json> kMisfits = {
        Json(),
        Json(true),
        Json(-1),
        Json(0.5),
        Json(1e300),
        Json(UINT64_MAX),
        Json(""),
        Json("sqlite_schema"),
        Json("hosts; DROP TABLE hosts"),
        Json("revision"),
        Json(std::string(1000, 'x')),
        Json::array(),
        Json::object(),
        Json::array().push(1).push(2).push(3).push(4).push(5).push(6),
        Json::object().set("Bytes", "0"),
        Json::object().set("Bytes", "zz"),
        Json::object().set("Text", 1),
        Json::object().set("Bytes", "00").set("Text", "00"),
        Json::object().set("Other", "00")};
    return kMisfits;
}

/// Calls `rebuild` with each copy of `json` in which one value, at whatever depth, is a misfit.
void with_each_misfit(const Json& json, const std::function<void(Json)>& rebuild) {
    for (const Json& misfit : misfits()) rebuild(misfit);
    for (std::size_t i = 0; i < json.items().size(); ++i) {
        with_each_misfit(json.items()[i], [&](Json replaced) {
            Json::Array list = json.items();
            list[i] = std::move(replaced);
            rebuild(Json(std::move(list)));
        });
    }
    for (const auto& member : json.members()) {
        with_each_misfit(member.second, [&](Json replaced) {
            Json copy = json;
            rebuild(copy.set(member.first, std::move(replaced)));
        });
    }
}

class RowRoutes : public ::testing::Test {
  protected:
    RowRoutes() { api::add_row_routes(table_, &rows_); }
    api::Response post(const std::string& target, const std::string& body) {
        return table_.dispatch({"POST", target, body, {.allowed = true}});
    }
    std::size_t records() {
        std::size_t count = 0;
        EXPECT_TRUE(sqlite_->read([&](Transaction& tx) -> Result<void> {
            count = tx.list<HostRecord>()->size() + tx.list<PastHolderRecord>()->size();
            return {};
        }));
        return count;
    }

    TemporaryFolder folder_;
    std::unique_ptr<SqliteStore> sqlite_ = *SqliteStore::open(folder_.file("metadata.db"));
    LocalRows rows_{sqlite_.get()};
    api::RouteTable table_{[] { return true; }};
};

TEST_F(RowRoutes, EachFieldIsTriedWithEachMisfit) {
    const std::pair<const char*, Json> kCases[] = {
        {"/v1/rows/list", api::list_request_json(past_holders(), some_observed().reads[1].query)},
        {"/v1/rows/try", api::changes_json(some_observed().changes)},
        {"/v1/rows/check", api::observed_json(some_observed())},
        {"/v1/rows/commit?commit=1", api::observed_json(some_observed())}};
    int refused = 0;
    for (const auto& [target, good] : kCases) {
        ASSERT_EQ(post(target, good.dump()).status, 200) << target;
        ASSERT_EQ(records(), 0u);
        with_each_misfit(good, [&, path = target](const Json& damaged) {
            const auto answer = post(path, damaged.dump());
            // A value may be another one: then it is a good question.
            EXPECT_TRUE(answer.status == 200 || answer.status == 400) << answer.body;
            if (answer.status == 200) return;
            ++refused;
            EXPECT_FALSE((*Json::parse(answer.body))["message"].as_string().empty());
            EXPECT_LT(answer.body.size(), 1000u);
        });
    }
    EXPECT_GT(refused, 800);
    EXPECT_EQ(records(), 0u);
}

TEST_F(RowRoutes, WhatIsMissingOrTooMuchIsRefused) {
    const Json good = api::observed_json(some_observed());
    for (const auto& [name, value] : good.members()) {
        Json less = Json::object();
        for (const auto& [other, kept] : good.members()) {
            if (other != name) less.set(other, kept);
        }
        EXPECT_EQ(post("/v1/rows/check", less.dump()).status, 400) << name;
    }
    Json more = good;
    EXPECT_EQ(post("/v1/rows/check", more.set("More", 1).dump()).status, 400);
    EXPECT_EQ(post("/v1/rows/check", "").status, 400);
    EXPECT_EQ(post("/v1/rows/check", "[]").status, 400);
    EXPECT_EQ(post("/v1/rows/commit", good.dump()).status, 400);  // it has no number
    EXPECT_EQ(post("/v1/rows/commit?commit=-1", good.dump()).status, 400);
    EXPECT_EQ(post("/v1/rows/commit?commit=1&client=x", good.dump()).status, 400);
    EXPECT_EQ(post("/v1/rows/try", api::changes_json({}).dump()).status, 400);
    EXPECT_EQ(post("/v1/rows/other", good.dump()).status, 404);
    Query many;
    for (const char* column : {"resource", "host", "incarnation", "generation"})
        many.where.push_back({column, "x"});
    Json list = api::list_request_json(past_holders(), many);
    EXPECT_EQ(post("/v1/rows/list", list.dump()).status, 200);
    Json::Array where = list["Where"].items();
    where.push_back(Json::array().push("created_ms").push(1));
    EXPECT_EQ(post("/v1/rows/list", Json(list).set("Where", Json(where)).dump()).status, 400);
    where.pop_back();
    std::swap(where[0], where[1]);
    EXPECT_EQ(post("/v1/rows/list", Json(list).set("Where", Json(where)).dump()).status, 400);
    Json other = good;
    const auto answer = post("/v1/rows/check", other.set("Tables", "00000000").dump());
    EXPECT_EQ((*Json::parse(answer.body))["code"].as_string(), "UnsupportedOperation");
}

TEST_F(RowRoutes, ValuesOfAnotherTypeAreRefusedByTheStore) {
    for (const Value& value : {Value(), Value(std::int64_t{3}), Value(Bytes{std::byte{1}})}) {
        const std::vector<Change> changes = {
            {Change::Kind::kPut, &hosts(), row_of({value, value, "text", value}, 0), std::nullopt}};
        const auto answer = post("/v1/rows/try", api::changes_json(changes).dump());
        EXPECT_EQ(answer.status, 200);
        EXPECT_EQ((*Json::parse(answer.body))["Refused"].as_string(), "invalid_argument");
    }
}

TEST_F(RowRoutes, DamageAtRandomIsRefusedOrUnderstood) {
    suites::Random random;
    const std::string good = api::observed_json(some_observed()).dump();
    const std::string list =
        api::list_request_json(past_holders(), some_observed().reads[1].query).dump();
    for (int i = 0; i < 3000; ++i) {
        const bool lists = random.one_in(3);
        std::string body = lists ? list : good;
        for (std::uint64_t n = random.between(1, 4); n > 0; --n) {
            const std::size_t at = random.between(0, body.size() - 1);
            if (random.one_in(2))
                body[at] = static_cast<char>(random.between(0, 255));
            else
                body.erase(at, random.between(1, 8));
            if (body.empty()) body = "{";
        }
        const auto answer = post(lists ? "/v1/rows/list" : "/v1/rows/check", body);
        EXPECT_TRUE(answer.status == 200 || answer.status == 400)
            << body << " " << suites::seed_text();
    }
    EXPECT_EQ(records(), 0u);
}

}  // namespace
}  // namespace ublkd::metadata::test
