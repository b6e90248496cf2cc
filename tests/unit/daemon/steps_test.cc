#include "ublkd/daemon/steps.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

namespace ublkd::daemon {
namespace {

TEST(Steps, OneThatHangsHoldsUpNoOther) {
    std::promise<void> disk;
    std::promise<void> other;
    Steps steps;
    steps.run("hangs", [answered = disk.get_future().share()] { answered.wait(); });
    steps.run("other", [&other] { other.set_value(); });
    EXPECT_EQ(other.get_future().wait_for(std::chrono::seconds(10)), std::future_status::ready);
    disk.set_value();
}

TEST(Steps, OfANameOneRunsAtATime) {
    std::atomic<int> ran = 0;
    Steps steps;
    std::promise<void> disk;
    steps.run("volume", [&ran, answered = disk.get_future().share()] {
        ++ran;
        answered.wait();
    });
    for (int i = 0; i < 100; ++i) steps.run("volume", [&ran] { ++ran; });
    disk.set_value();
    steps.wait();
    EXPECT_EQ(ran, 1);
    steps.run("volume", [&ran] { ++ran; });
    steps.wait();
    EXPECT_EQ(ran, 2);
}

}  // namespace
}  // namespace ublkd::daemon
