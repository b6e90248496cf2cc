// Reading a request strictly: the first thing that is wrong is told, with the field, what was given
// and what is allowed.
#include "ublkd/api/fields.h"

#include <gtest/gtest.h>

namespace ublkd::api {
namespace {

TEST(Fields, GoodFieldsAreRead) {
    const auto body =
        Json::parse(R"({"N": 3, "S": "x", "B": true, "T": [{"Key": "k", "Value": ""}]})");
    Fields fields(*body);
    EXPECT_EQ(fields.number("N", 0, 1, 3), 3u);
    EXPECT_EQ(fields.required_text("S"), "x");
    EXPECT_TRUE(fields.flag("B"));
    EXPECT_EQ(fields.tags("T"), (Tags{{"k", ""}}));
    EXPECT_EQ(fields.choice("C", {"a", "b"}, "a"), "a");
    EXPECT_FALSE(fields.optional_flag("F"));
    EXPECT_TRUE(fields.done());
}

struct Wrong {
    const char* body;
    const char* code;
    const char* text;
};

TEST(Fields, WrongOnesAreToldApart) {
    for (const auto& [body, code, text] : {
             Wrong{R"({"N": 4})", "InvalidParameterValue",
                   "N must be a whole number from 1 to 3; '4' was given"},
             Wrong{R"({"N": "2"})", "InvalidParameterValue",
                   "N must be a whole number from 1 to 3; '2' was given"},
             Wrong{R"({"N": 1.5})", "InvalidParameterValue", "'1.5' was given"},
             Wrong{R"({"B": "yes"})", "InvalidParameterValue",
                   "B must be true or false; 'yes' was given"},
             Wrong{R"({"C": "c"})", "InvalidParameterValue",
                   "C must be one of a, b; 'c' was given"},
             Wrong{R"({"C": 1})", "InvalidParameterValue", "C must be one of a, b; '1' was given"},
             Wrong{R"({"R": ""})", "InvalidParameterValue",
                   "R must not be empty: leave it out to give none"},
             Wrong{R"({"T": [{"Key": "k", "Value": "a"}, {"Key": "k", "Value": "b"}]})",
                   "InvalidParameterValue", "T has the key 'k' twice"},
             Wrong{R"({"T": [{"Key": "k"}]})", "InvalidParameterValue",
                   "T must be a list of {Key, Value}"},
             Wrong{R"({"X": 1})", "InvalidRequest", "unknown field 'X'; known are N, B, C, T, R"},
             Wrong{R"({"N": 9, "B": 1})", "InvalidParameterValue", "N must be"},
         }) {
        const auto parsed = Json::parse(body);
        Fields fields(*parsed);
        (void)fields.number("N", 1, 1, 3);
        (void)fields.flag("B");
        (void)fields.choice("C", {"a", "b"}, "a");
        (void)fields.tags("T");
        (void)fields.text("R");
        const auto done = fields.done();
        ASSERT_FALSE(done) << body;
        EXPECT_EQ(done.error().code, code) << body;
        EXPECT_NE(done.error().message.find(text), std::string::npos) << done.error().message;
    }
}

TEST(Fields, MissingOneIsMissing) {
    const Json nothing;
    Fields fields(nothing);
    (void)fields.required_text("S");
    const auto done = fields.done();
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, "MissingParameter");
}

TEST(Fields, TimesAreIso) {
    EXPECT_EQ(iso_time(0), "1970-01-01T00:00:00.000Z");
    EXPECT_EQ(iso_time(1767323045678), "2026-01-02T03:04:05.678Z");
}

}  // namespace
}  // namespace ublkd::api
