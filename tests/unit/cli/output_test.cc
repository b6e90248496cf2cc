// Every format made of one list; what is asked for and not there is told with what there is.
#include "cli/output.h"

#include <gtest/gtest.h>

#include "cli/cells.h"

namespace ublkd::cli {
namespace {

using api::Json;

const View kView{"Things",
                 "Id",
                 {{"NAME", [](const Json& item) { return item["Name"].as_string(); }},
                  {"SIZE", [](const Json& item) { return item["Size"].dump(); }},
                  {"MORE", [](const Json& item) { return item["More"].as_string(); }, true}}};

Json things() {
    return *Json::parse(R"({"Things": [
        {"Id": "t-2", "Name": "ä", "Size": 10, "More": "x\ty", "Tags": [{"Key": "k", "Value": "v"}], "Deep": {"Er": "in"}},
        {"Id": "t-1", "Name": "long", "Size": 9, "More": "", "Tags": []}]})");
}

std::string text(OutputOptions options) {
    return list_text(kView, things(), options).value_or("refused");
}

TEST(Output, TablesAreAlignedByCharacters) {
    EXPECT_EQ(text({}), "NAME  SIZE\nä     10\nlong  9\n");
    EXPECT_EQ(text({.format = Format::kWide}), "NAME  SIZE  MORE\nä     10    x y\nlong  9\n");
}

TEST(Output, FormatsForScripts) {
    EXPECT_EQ(text({.format = Format::kTsv}), "ä\t10\nlong\t9\n");
    EXPECT_EQ(text({.format = Format::kTsv, .columns = {"more", "name"}}), "x y\tä\n\tlong\n");
    EXPECT_EQ(text({.format = Format::kId}), "t-2\nt-1\n");
    const std::string lines = text({.format = Format::kJsonLines});
    EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 2);
    EXPECT_EQ(Json::parse(text({.format = Format::kJson})), things());
}

TEST(Output, SortsNumbersAsNumbers) {
    EXPECT_EQ(text({.format = Format::kId, .sort = "Size"}), "t-1\nt-2\n");
    EXPECT_EQ(text({.format = Format::kId, .sort = "-size"}), "t-2\nt-1\n");
    EXPECT_EQ(text({.format = Format::kId, .sort = "NAME"}), "t-1\nt-2\n");
}

TEST(Output, FiltersByColumnKeyAndTag) {
    EXPECT_EQ(text({.format = Format::kId, .filters = {"name=l*"}}), "t-1\n");
    EXPECT_EQ(text({.format = Format::kId, .filters = {"deep.er=in"}}), "t-2\n");
    EXPECT_EQ(text({.format = Format::kId, .filters = {"tag:k=v"}}), "t-2\n");
    EXPECT_EQ(text({.format = Format::kId, .filters = {"name=*", "size=9"}}), "t-1\n");
}

TEST(Output, OfSeveralFiltersForOneKeyOneMustFit) {
    EXPECT_EQ(text({.format = Format::kId, .filters = {"size=9", "size=10"}}), "t-2\nt-1\n");
    EXPECT_EQ(text({.format = Format::kId, .filters = {"size=9", "size=10", "name=long"}}),
              "t-1\n");
}

TEST(Output, FiltersLookIntoLists) {
    EXPECT_EQ(text({.format = Format::kId, .filters = {"Tags.Key=k"}}), "t-2\n");
    EXPECT_EQ(text({.format = Format::kId, .filters = {"tag:k=*"}}), "t-2\n");
    const auto empty = *Json::parse(R"({"Things": [{"Id": "t", "Tags": []}]})");
    EXPECT_EQ(list_text(kView, empty, {.format = Format::kId, .filters = {"Tags.Key=k"}}), "");
    EXPECT_FALSE(list_text(kView, empty, {.format = Format::kId, .filters = {"Id.Key=k"}}));
}

TEST(Output, AnEnvelopeIsOfJsonAndYaml) {
    const auto envelope = [](Json inner) { return Json::object().set("Outer", std::move(inner)); };
    EXPECT_EQ(Json::parse(text({.format = Format::kJson, .envelope = envelope})),
              Json::object().set("Outer", things()));
    EXPECT_EQ(text({.format = Format::kId, .envelope = envelope}), "t-2\nt-1\n");
}

TEST(Output, WhatIsNotThereIsTold) {
    for (const OutputOptions& options :
         {OutputOptions{.columns = {"none"}}, OutputOptions{.filters = {"none=1"}},
          OutputOptions{.filters = {"none"}}, OutputOptions{.sort = "none"}}) {
        const auto refused = list_text(kView, things(), options);
        ASSERT_FALSE(refused);
        EXPECT_NE(refused.error().find("none"), std::string::npos);
    }
    EXPECT_FALSE(parse_format("xml"));
}

TEST(Output, NothingIsAnEmptyTable) { EXPECT_EQ(list_text(kView, Json::object(), {}), ""); }

TEST(Yaml, QuotesWhatWouldBeReadOtherwise) {
    const auto json = Json::parse(
        R"({"a": "yes", "b": "plain", "c": 7, "d": "7", "e": [], "f": [{"g": "x: y", "h": null}], "i": {"j": [1, 2]}})");
    EXPECT_EQ(yaml_text(*json),
              "a: \"yes\"\nb: plain\nc: 7\nd: \"7\"\ne: []\nf:\n- g: \"x: y\"\n  h: null\ni:\n  "
              "j:\n  - 1\n  - 2\n");
}

TEST(Health, IsOneShortText) {
    const auto text_of = [](const char* health) {
        return health_text(Json::object().set("Health", *Json::parse(health)));
    };
    EXPECT_EQ(text_of(R"({"State": "ok", "InSync": 2, "Wanted": 2})"), "ok 2/2");
    EXPECT_EQ(
        text_of(
            R"({"State": "syncing", "InSync": 1, "Wanted": 2, "SyncDoneBytes": 63, "SyncTotalBytes": 100})"),
        "sync 63% 1/2");
    EXPECT_EQ(text_of(R"({"State": "degraded", "InSync": 1, "Wanted": 2})"), "degraded 1/2");
    EXPECT_EQ(text_of(R"({"State": "blocked", "BlockedBy": "R5", "InSync": 1, "Wanted": 2})"),
              "blocked R5 1/2");
}

}  // namespace
}  // namespace ublkd::cli
