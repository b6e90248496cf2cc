// Structures as aws's CLI takes them: both forms give the same, and what is neither is told with
// what is expected where.
#include "cli/shorthand.h"

#include <gtest/gtest.h>

namespace ublkd::cli {
namespace {

/// The structures as one line of JSON each.
std::string read(const std::string& word) {
    const auto made = parse_structures("--x", word);
    if (!made) return "refused";
    std::string text;
    for (const auto& item : *made) text += item.dump() + "\n";
    return text;
}
std::string normal(const std::string& json) { return api::Json::parse(json)->dump() + "\n"; }

TEST(Shorthand, IsReadAsAwsReadsIt) {
    for (
        const auto& [word, json] : std::vector<std::pair<std::string, std::string>>{
            {"Key=k,Value=v", R"({"Key":"k","Value":"v"})"},
            {"Key=k,Value=", R"({"Key":"k","Value":""})"},
            {"Key=k,Value=a b=c", R"({"Key":"k","Value":"a b=c"})"},
            {"Name=status,Values=a,b", R"({"Name":"status","Values":["a","b"]})"},
            {"Values=a,b,Name=status", R"({"Values":["a","b"],"Name":"status"})"},
            {"Values=[a,b]", R"({"Values":["a","b"]})"},
            {"Values=[]", R"({"Values":[]})"},
            {R"(Key="a,b",Value='c"')", R"({"Key":"a,b","Value":"c\""})"},
            {R"(Key=a\,b)", R"({"Key":"a,b"})"},
            {"ResourceType=volume,Tags=[{Key=a,Value=1},{Key=b,Value=x y}]",
             R"({"ResourceType":"volume","Tags":[{"Key":"a","Value":"1"},{"Key":"b","Value":"x y"}]})"},
            {"A={B={C=d}}", R"({"A":{"B":{"C":"d"}}})"},
            {R"({"Key": "a"})", R"({"Key":"a"})"}})
        EXPECT_EQ(read(word), normal(json)) << word;
    EXPECT_EQ(read(R"([{"Key": "a"}, {"Key": "b"}])"),
              normal(R"({"Key": "a"})") + normal(R"({"Key": "b"})"));
}

TEST(Shorthand, RefusesWhatIsNeither) {
    for (const char* word : {"", "x", "=x", "Key", "Key=a,Key=b", "Tags=[a", "Tags=[{Key=a]",
                             "A={B=c", "A={B=c}d", "A='b", "A=\"b", "[", "[1]", "{\"a\"}", "[[]]"})
        EXPECT_EQ(read(word), "refused") << word;
    std::string deep = "A=";
    for (int i = 0; i < 100000; ++i) deep += "[";
    EXPECT_EQ(read(deep), "refused");
    deep = "";
    for (int i = 0; i < 100000; ++i) deep += "A={";
    EXPECT_EQ(read(deep), "refused");
}

TEST(Shorthand, SaysWhatIsExpectedAndWhere) {
    EXPECT_EQ(parse_structures("--tags", "Key=a,Tags=[b").error().message,
              "--tags: 'Key=a,Tags=[b' is neither KEY=VALUE,... as aws takes it nor JSON: ']' is "
              "expected at character 14");
}

}  // namespace
}  // namespace ublkd::cli
