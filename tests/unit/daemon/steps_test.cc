#include "ublkd/daemon/steps.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

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

TEST(Steps, FewRunAtOnce) {
    std::atomic<unsigned> open = 0;
    std::atomic<unsigned> most = 0;
    std::atomic<int> ran = 0;
    Steps steps;
    for (int i = 0; i < 100; ++i) {
        steps.run(std::to_string(i), [&] {
            const unsigned now = ++open;
            for (unsigned seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
            --open;
            ++ran;
        });
    }
    steps.wait();
    EXPECT_EQ(ran, 100);
    EXPECT_LE(most, Steps::kAtOnce);
    EXPECT_GT(most, 1U);
}

TEST(Steps, ManyThatHangHoldUpNoOther) {
    std::promise<void> disk;
    std::promise<void> other;
    Steps steps;
    const auto answered = disk.get_future().share();
    for (unsigned i = 0; i < 2 * Steps::kAtOnce; ++i)
        steps.run(std::to_string(i), [answered] { answered.wait(); });
    steps.run("other", [&other] { other.set_value(); });
    EXPECT_EQ(other.get_future().wait_for(std::chrono::seconds(10)), std::future_status::ready);
    disk.set_value();
}

}  // namespace
}  // namespace ublkd::daemon
