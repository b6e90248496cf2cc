// Sizes, times and patterns as a person writes them; exit codes by the form of the API's code.
#include "cli/values.h"

#include <gtest/gtest.h>

#include "cli/client.h"
#include "ublkd/base/units.h"

namespace ublkd::cli {
namespace {

TEST(Sizes, UnitsArePowersOf1024) {
    for (const auto& [text, mib] : {std::pair("1M", 1ull),
                                    {"10G", 10240ull},
                                    {"10GiB", 10240ull},
                                    {"10gb", 10240ull},
                                    {"1.5G", 1536ull},
                                    {"2T", 2097152ull},
                                    {"1024K", 1ull},
                                    {"0.5G", 512ull}}) {
        EXPECT_EQ(parse_size(text), mib * kMiB) << text;
    }
}

TEST(Sizes, WhatIsNoneIsRefusedWithWhatIsAllowed) {
    for (const char* text : {"", "G", "10", "0G", "-1G", "1X", "1 G", "1GG", "1000K", "1.00001G",
                             "99999999999P", "nan", "infG", "1e3G", "0x10G"}) {
        const auto parsed = parse_size(text);
        ASSERT_FALSE(parsed) << text;
        EXPECT_NE(parsed.error().find("10G is 10 GiB"), std::string::npos);
    }
}

TEST(Sizes, AreShownShort) {
    EXPECT_EQ(short_size(0), "0");
    EXPECT_EQ(short_size(512), "0.5K");
    EXPECT_EQ(short_size(64 * kMiB), "64M");
    EXPECT_EQ(short_size(10240 * kMiB), "10G");
    EXPECT_EQ(short_size(1229 * kMiB), "1.2G");
    EXPECT_EQ(short_size(1024 * 1024 * kMiB), "1T");
    EXPECT_EQ(short_size(1024 * kMiB - 1), "1G");
    EXPECT_EQ(long_size(10240 * kMiB), "10 GiB");
    EXPECT_EQ(long_size(0), "0 B");
}

TEST(Durations, AreReadAndShown) {
    EXPECT_EQ(parse_duration("5m"), std::chrono::minutes(5));
    EXPECT_EQ(parse_duration("1.5s"), std::chrono::milliseconds(1500));
    EXPECT_EQ(parse_duration("20"), std::chrono::seconds(20));
    EXPECT_EQ(parse_duration("2h"), std::chrono::hours(2));
    for (const char* text : {"", "0", "-1s", "1d", "m", "5 m"})
        EXPECT_FALSE(parse_duration(text)) << text;
    EXPECT_EQ(short_duration(59), "59s");
    EXPECT_EQ(short_duration(3600), "1h");
    EXPECT_EQ(short_duration(4 * 86400 + 5), "4d");
}

TEST(Globs, StarStandsForAnything) {
    EXPECT_TRUE(glob_fits("in-use", "in-use"));
    EXPECT_FALSE(glob_fits("in", "in-use"));
    EXPECT_TRUE(glob_fits("in*", "in-use"));
    EXPECT_TRUE(glob_fits("*u*e", "in-use"));
    EXPECT_TRUE(glob_fits("*", ""));
    EXPECT_FALSE(glob_fits("a*b", "ac"));
    EXPECT_TRUE(glob_fits("a*b*b", "ababb"));
}

TEST(ExitCodes, FollowTheApisCode) {
    EXPECT_EQ(exit_code_of("InvalidParameterValue"), 2);
    EXPECT_EQ(exit_code_of("MissingParameter"), 2);
    EXPECT_EQ(exit_code_of("InvalidVolume.NotFound"), 3);
    EXPECT_EQ(exit_code_of("UnauthorizedOperation"), 4);
    EXPECT_EQ(exit_code_of("IncorrectState"), 5);
    EXPECT_EQ(exit_code_of("VolumeInUse"), 5);
    EXPECT_EQ(exit_code_of("AlreadyExists"), 5);
    EXPECT_EQ(exit_code_of("NotInitialized"), 1);
    EXPECT_EQ(exit_code_of(""), 1);
}

TEST(Encoding, KeepsWhatIsSafe) {
    EXPECT_EQ(percent_encoded("vol-0a.b_c~"), "vol-0a.b_c~");
    EXPECT_EQ(percent_encoded("a/b c%ä"), "a%2Fb%20c%25%C3%A4");
}

}  // namespace
}  // namespace ublkd::cli
