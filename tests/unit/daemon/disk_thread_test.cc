// A disk that hangs is a call that waits for the test.
#include "ublkd/daemon/disk_thread.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace ublkd::daemon {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

/// A disk that answers when it is told to.
class Disk {
  public:
    std::function<Result<int>()> hanging() {
        return [gate = gate_.get_future().share(), calls = calls_]() -> Result<int> {
            ++*calls;
            gate.wait();
            return 1;
        };
    }
    std::function<Result<int>()> quick() {
        return [calls = calls_]() -> Result<int> { return ++*calls; };
    }
    void answer() { gate_.set_value(); }
    int calls() const { return *calls_; }

  private:
    std::promise<void> gate_;
    std::shared_ptr<std::atomic<int>> calls_ = std::make_shared<std::atomic<int>>(0);
};

bool becomes_true(const std::function<bool()>& condition) {
    for (const auto end = Clock::now() + 10s; Clock::now() < end; std::this_thread::sleep_for(1ms))
        if (condition()) return true;
    return false;
}

TEST(DiskThread, AnswersAreHandedOver) {
    DiskThread thread("test");
    Disk disk;
    EXPECT_EQ(*thread.ask(10s, disk.quick()), 1);
    EXPECT_EQ(*thread.ask(10s, disk.quick()), 2);
    const auto failed = thread.ask(10s, []() -> Result<int> { return fail(Errc::kIo, "test"); });
    EXPECT_EQ(failed.error().code, Errc::kIo);
    EXPECT_FALSE(thread.is_late());
}

TEST(DiskThread, WhoAsksGoesOnWhereTheDiskHangs) {
    DiskThread thread("test");
    Disk disk;
    EXPECT_EQ(thread.ask(20ms, disk.hanging()).error().code, Errc::kTimedOut);
    EXPECT_TRUE(thread.is_late());
    // The next does not wait at all, and is not made: nothing piles up behind a disk that hangs.
    const auto began = Clock::now();
    EXPECT_EQ(thread.ask(10s, disk.quick()).error().code, Errc::kTimedOut);
    EXPECT_LT(Clock::now() - began, 5s);
    EXPECT_EQ(disk.calls(), 1);
    disk.answer();
    EXPECT_TRUE(becomes_true([&] { return !thread.is_late(); }));
    EXPECT_EQ(*thread.ask(10s, disk.quick()), 2);
}

TEST(DiskThread, EndWaitsForNothingAndWhatWasBegunGoesOn) {
    Disk disk;
    {
        DiskThread thread("test");
        EXPECT_FALSE(thread.ask(20ms, disk.hanging()));
    }
    disk.answer();
    // The call's state is alive until it has ended: the sanitizers see it where it is not.
    EXPECT_EQ(disk.calls(), 1);
}

TEST(DiskThread, ManyAskAtOnce) {
    DiskThread thread("test");
    Disk disk;
    std::vector<std::jthread> askers;
    std::atomic<int> sum = 0;
    for (int i = 0; i < 8; ++i)
        askers.emplace_back([&] {
            for (int k = 0; k < 50; ++k) sum += *thread.ask(10s, disk.quick());
        });
    askers.clear();
    EXPECT_EQ(sum, 400 * 401 / 2);
}

}  // namespace
}  // namespace ublkd::daemon
