// The JSON value: what is parsed is what was written, and what is not JSON is refused with a
// reason.
#include "ublkd/api/json.h"

#include <gtest/gtest.h>

#include <chrono>

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

TEST(Json, TimeGrowsWithTheLengthAlone) {
    // As many objects, and as many keys, as a body of the API may have: seconds, where the square
    // of their number is minutes.
    std::string objects = "[{}";
    std::string keys = R"({"0": 0)";
    for (int i = 1; i < 150'000; ++i) {
        objects += ",{}";
        keys += ",\"" + std::to_string(i) + "\":0";
    }
    const auto before = std::chrono::steady_clock::now();
    EXPECT_EQ(Json::parse(objects + "]")->items().size(), 150'000u);
    EXPECT_EQ(Json::parse(keys + "}")->members().size(), 150'000u);
    EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(10));
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
