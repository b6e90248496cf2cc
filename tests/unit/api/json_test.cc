// The JSON value: what is parsed is what was written, and what is not JSON is refused with a
// reason.
#include "ublkd/api/json.h"

#include <gtest/gtest.h>

#include <ctime>

namespace ublkd::api {
namespace {

TEST(Json, ParsedAndDumpedAgainIsTheSame) {
    const std::string text =
        R"({"b": 1, "a": [true, null, -7, 18446744073709551615, 1.5, "x\"\\\n\u00e4"], "o": {}})";
    const auto parsed = Json::parse(text);
    ASSERT_TRUE(parsed);
    EXPECT_EQ((*parsed)["a"].items()[3].as_u64(), 18446744073709551615u);
    EXPECT_EQ((*parsed)["a"].items()[5].as_string(), "x\"\\\nä");
    EXPECT_EQ(Json::parse(parsed->dump()), parsed);
    EXPECT_EQ(Json::parse(parsed->dump(true)), parsed);
}

TEST(Json, ObjectsKeepTheOrderOfTheirKeys) {
    const Json json = Json::object().set("z", 1).set("a", 2).set("z", 3);
    EXPECT_EQ(json.dump(), R"({"z": 3, "a": 2})");
}

TEST(Json, WhatIsNoJsonIsRefusedWithAReason) {
    for (const char* text : {"", "{", "{\"a\":}", "[1,]", "nul", "1 2", "\"\xff\"", "{'a':1}"}) {
        std::string error;
        EXPECT_FALSE(Json::parse(text, &error)) << text;
        EXPECT_FALSE(error.empty()) << text;
    }
}

TEST(Json, KeyThatIsThereTwiceIsRefusedAndNamed) {
    for (const char* text : {R"({"a": 1, "a": 1})", R"([{"b": {"a": 1, "c": [], "a": 2}}])"}) {
        std::string error;
        EXPECT_FALSE(Json::parse(text, &error)) << text;
        EXPECT_EQ(error, "the field 'a' is there twice");
    }
    EXPECT_TRUE(Json::parse(R"({"a": {"a": [{"a": 1}, {"a": 1}]}, "b": {"a": 1}})"));
}

TEST(Json, DeepTextIsRefusedBeforeItIsParsed) {
    std::string error;
    EXPECT_FALSE(Json::parse(std::string(1'000'000, '['), &error));
    EXPECT_EQ(error, "more than 32 levels");
    EXPECT_TRUE(Json::parse(std::string(32, '[') + std::string(32, ']')));
    EXPECT_FALSE(Json::parse(std::string(33, '[') + std::string(33, ']')));
    EXPECT_TRUE(Json::parse("\"" + std::string(100, '[') + "\""))
        << "brackets in a string are no levels";
}

/// This thread's processor time, in nanoseconds, for a text of so many objects and as many keys.
std::int64_t time_to_parse(int count) {
    std::string objects = "[{}";
    std::string keys = R"({"0": 0)";
    for (int i = 1; i < count; ++i) {
        objects += ",{}";
        keys += ",\"" + std::to_string(i) + "\":0";
    }
    const auto now = [] {
        timespec time{};
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
        return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
    };
    const std::int64_t before = now();
    EXPECT_EQ(Json::parse(objects + "]")->items().size(), std::size_t(count));
    EXPECT_EQ(Json::parse(keys + "}")->members().size(), std::size_t(count));
    return now() - before;
}

TEST(Json, TimeGrowsWithTheLengthAlone) {
    (void)time_to_parse(1'000);  // warms up
    EXPECT_LT(time_to_parse(32'000), 100 * time_to_parse(2'000)) << "16 times, and not its square";
}

TEST(Json, WrongTypesGiveTheFallback) {
    const auto parsed = Json::parse(R"({"s": "x", "n": -1, "d": 1.5, "e": 2.0})");
    ASSERT_TRUE(parsed);
    EXPECT_EQ((*parsed)["s"].u64(7), 7u);
    EXPECT_FALSE((*parsed)["n"].as_u64());
    EXPECT_FALSE((*parsed)["d"].as_u64());
    EXPECT_EQ((*parsed)["e"].as_u64(), 2u);
    EXPECT_EQ((*parsed)["nothing"].as_string("f"), "f");
    EXPECT_TRUE((*parsed)["s"]["deeper"].is_null());
    EXPECT_TRUE((*parsed)["s"].items().empty());
}

TEST(Json, BytesThatAreNotUtf8AreReplaced) {
    const std::string dumped = Json(std::string("a\xff")).dump();
    EXPECT_TRUE(Json::parse(dumped)) << dumped;
}

}  // namespace
}  // namespace ublkd::api
