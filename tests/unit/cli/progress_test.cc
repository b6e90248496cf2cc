// What is told while one waits, and what a look at a volume says.
#include "cli/progress.h"

#include <gtest/gtest.h>

#include "ublkd/base/units.h"

namespace ublkd::cli {
namespace {

TEST(Progress, ALineSaysWhatIsKnown) {
    Measured now;
    now.elapsed = std::chrono::seconds(10);
    EXPECT_EQ(now.line(), "10s");
    now.look.state = "attaching";
    EXPECT_EQ(now.line(), "10s, attaching");
    now.look = {"", 640 * kMiB, 1024 * kMiB};
    EXPECT_EQ(now.line(), "10s, 62%, 640 MiB of 1 GiB");
    now.bytes_per_second = 64 * kMiB;
    now.seconds_left = 6;
    EXPECT_EQ(now.line(), "10s, 62%, 640 MiB of 1 GiB, 64 MiB/s, 6s left");
}

TEST(Progress, ABarIsAsFullAsTheWorkIsDone) {
    Measured now{.look = {"", 0, 100}, .elapsed = {}};
    EXPECT_EQ(now.bar(), "[>                             ] 0%");
    now.look.done_bytes = 50;
    now.bytes_per_second = 10 * kMiB;
    now.seconds_left = 65;
    EXPECT_EQ(now.bar(), "[===============>              ] 50%  10 MiB/s  1m left");
    now.look.done_bytes = 100;
    EXPECT_TRUE(now.bar().starts_with("[==============================] 100%"));
    now.look.done_bytes = 200;  // a volume may grow less than was told
    EXPECT_TRUE(now.bar().starts_with("[==============================] 100%"));
    EXPECT_EQ((Measured{.look = {"attaching"}, .elapsed = {}}.bar()), "0s, attaching");
}

TEST(Progress, JsonHasWhatIsKnown) {
    Measured now{.look = {"attaching"}, .elapsed = std::chrono::seconds(3)};
    EXPECT_EQ(now.json(), api::Json::parse(R"({"ElapsedSeconds": 3, "State": "attaching"})"));
    now = {.look = {"", 1, 3}, .elapsed = {}, .bytes_per_second = 1, .seconds_left = 2};
    EXPECT_EQ(now.json(), api::Json::parse(R"({"ElapsedSeconds": 0, "DoneBytes": 1, "TotalBytes": 3,
                                               "BytesPerSecond": 1, "SecondsLeft": 2})"));
}

TEST(Progress, ALookAtAVolume) {
    const auto volume = *api::Json::parse(R"({"State": "in-use", "SizeBytes": 9,
        "Health": {"SyncDoneBytes": 1, "SyncTotalBytes": 2, "VerifiedBytes": 0},
        "Attachments": [{"State": "attaching", "StateMessage": "no disk"}]})");
    EXPECT_EQ(look_at(volume).state, "attaching (no disk)");
    EXPECT_EQ(look_at(volume).total_bytes, 2U);
    EXPECT_EQ(
        look_at(*api::Json::parse(R"({"State": "in-use", "Attachments": [{"State": "attached"}],
                  "Health": {"State": "degraded", "InSync": 1, "Wanted": 2}})"))
            .state,
        "in-use (degraded 1/2)");
    EXPECT_EQ(look_at_verify(volume).total_bytes, 9U);
    EXPECT_EQ(look_at_verify(*api::Json::parse(R"({"SizeBytes": 9})")).total_bytes, 0U);
}

}  // namespace
}  // namespace ublkd::cli
