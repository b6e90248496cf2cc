// Goal: what crosses threads: Worker, Offload, ReactorThread, run_on. Run under the thread
// sanitizer.
#include "ublkd/io/worker.h"

#include <atomic>

#include "tests/unit/io/io_fixture.h"

namespace ublkd::io {
namespace {

using WorkerTest = IoTest;

TEST_F(WorkerTest, WorkerRunsAllThatWasSubmittedInOrder) {
    std::vector<int> seen;
    {
        Worker worker("test");
        for (int i = 0; i < 1000; ++i) worker.submit([&seen, i] { seen.push_back(i); });
    }
    ASSERT_EQ(seen.size(), 1000U);
    for (int i = 0; i < 1000; ++i) EXPECT_EQ(seen[static_cast<std::size_t>(i)], i);
}

TEST_F(WorkerTest, OneThatLeavesItsCallsWaitsForNoneAndMakesThemAll) {
    std::promise<void> disk;
    std::promise<void> last;
    {
        Worker worker("test", Worker::AtEnd::kLeave);
        worker.submit([answered = disk.get_future().share()] { answered.wait(); });
        worker.submit([&last] { last.set_value(); });
    }
    disk.set_value();
    EXPECT_EQ(last.get_future().wait_for(std::chrono::seconds(10)), std::future_status::ready);
}

Task<int> offload_sum(Worker* worker, int times) {
    int sum = 0;
    for (int i = 0; i < times; ++i) {
        const std::function<int()> function = [i] { return i; };
        Offload<int> offload(*worker, function);
        sum += co_await offload;
        EXPECT_NE(Reactor::current(), nullptr);
    }
    co_return sum;
}

TEST_F(WorkerTest, OffloadRunsElsewhereAndResumesHere) {
    Worker worker("test");
    EXPECT_EQ(run(offload_sum(&worker, 200)), 199 * 200 / 2);
}

Task<int> hop(int value) {
    co_await Reactor::current()->yield();
    co_return value;
}
Task<void> set_flag(std::atomic<bool>* flag) {
    co_await Reactor::current()->yield();
    *flag = true;
}

TEST(RunOn, ManyThreadsGetTheirOwnResults) {
    auto thread = ReactorThread::start("reactor", {});
    ASSERT_TRUE(thread);
    std::vector<std::thread> callers;
    std::atomic<int> good = 0;
    for (int caller = 0; caller < 4; ++caller) {
        callers.emplace_back([&, caller] {
            for (int i = 0; i < 200; ++i) {
                const int value = caller * 1000 + i;
                if (run_on((*thread)->reactor(), [value] { return hop(value); }) == value) ++good;
            }
        });
    }
    for (std::thread& caller : callers) caller.join();
    EXPECT_EQ(good.load(), 800);
    std::atomic<bool> flag = false;
    run_on((*thread)->reactor(), [&flag] { return set_flag(&flag); });
    EXPECT_TRUE(flag.load());
}

TEST(ReactorThread, StartsAndStopsManyTimes) {
    // The reactor outlives the call of stop(), whatever the order of the two threads.
    for (int i = 0; i < 100; ++i) {
        auto thread =
            ReactorThread::start("reactor", ReactorOptions{.entries = 8, .registered_files = 4});
        ASSERT_TRUE(thread);
        if (i % 2 == 0) {
            EXPECT_EQ(run_on((*thread)->reactor(), [i] { return hop(i); }), i);
        }
    }
}

TEST(ReactorThread, FailureToStartIsReported) {
    const auto thread =
        ReactorThread::start("reactor", ReactorOptions{.entries = 1U << 30, .registered_files = 1});
    EXPECT_FALSE(thread);
}

TEST_F(WorkerTest, RunOnFromAReactorThreadIsABug) {
    EXPECT_DEATH((void)run_on(*reactor_, [] { return hop(1); }), "not for a reactor's thread");
}

}  // namespace
}  // namespace ublkd::io
