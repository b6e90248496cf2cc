#include "ublkd/daemon/backoff.h"

#include <gtest/gtest.h>

namespace ublkd::daemon {
namespace {

using std::chrono::seconds;

TEST(Backoff, WaitsLongerAfterEachFailureUpToAMinute) {
    Backoff backoff;
    auto now = Backoff::Clock::now();
    EXPECT_TRUE(backoff.is_due(now));
    for (const int wait : {1, 2, 4, 8, 16, 32, 60, 60}) {
        backoff.failed(now);
        EXPECT_FALSE(backoff.is_due(now + seconds(wait) - std::chrono::milliseconds(1))) << wait;
        EXPECT_TRUE(backoff.is_due(now + seconds(wait))) << wait;
        now += seconds(wait);
    }
    backoff.reset();
    EXPECT_TRUE(backoff.is_due(now));
    backoff.failed(now);
    EXPECT_TRUE(backoff.is_due(now + seconds(1)));
}

}  // namespace
}  // namespace ublkd::daemon
