// Goal: Task<T> in each preset: tasks that end at once use no stack, results move, frames are
// freed.
#include "ublkd/io/task.h"

#include <memory>
#include <string>

#include "tests/unit/io/io_fixture.h"
#include "ublkd/base/result.h"

namespace ublkd::io {
namespace {

using TaskTest = IoTest;

Task<int> at_once(int value) { co_return value; }

Task<std::uint64_t> loop_of_tasks_that_end_at_once(int times) {
    std::uint64_t sum = 0;
    for (int i = 0; i < times; ++i) sum += static_cast<std::uint64_t>(co_await at_once(1));
    co_return sum;
}

TEST_F(TaskTest, TwoMillionTasksThatEndAtOnceUseNoStack) {
    // Symmetric transfer overflows here at -O0 and under the sanitizers.
    EXPECT_EQ(run(loop_of_tasks_that_end_at_once(2'000'000)), 2'000'000U);
}

Task<int> nested(Reactor* reactor, int depth, bool suspend) {
    if (depth == 0) {
        if (suspend) co_await reactor->yield();
        co_return 0;
    }
    const int below = co_await nested(reactor, depth - 1, suspend);
    co_return below + 1;
}

TEST_F(TaskTest, NestedTasksReturnThroughAllLevels) {
    EXPECT_EQ(run(nested(reactor_.get(), 500, false)), 500);
    EXPECT_EQ(run(nested(reactor_.get(), 500, true)), 500);
}

Task<int> sometimes_suspends(Reactor* reactor, int i) {
    if (i % 3 == 0) co_await reactor->yield();
    co_return i;
}

Task<std::uint64_t> loop_that_mixes(Reactor* reactor, int times) {
    std::uint64_t sum = 0;
    for (int i = 0; i < times; ++i)
        sum += static_cast<std::uint64_t>(co_await sometimes_suspends(reactor, i));
    co_return sum;
}

TEST_F(TaskTest, LoopOverTasksThatSuspendNowAndThenUsesNoStack) {
    EXPECT_EQ(run(loop_that_mixes(reactor_.get(), 60'000)), 60'000ULL * 59'999 / 2);
}

Task<std::unique_ptr<int>> make_owner(int value) { co_return std::make_unique<int>(value); }
Task<Result<std::unique_ptr<std::string>>> make_result(bool good) {
    if (!good) co_return fail(Errc::kNotFound, "test");
    co_return std::make_unique<std::string>("good");
}

TEST_F(TaskTest, MoveOnlyResultsArrive) {
    EXPECT_EQ(*run(make_owner(7)), 7);
    EXPECT_EQ(**run(make_result(true)), "good");
    EXPECT_EQ(run(make_result(false)).error().code, Errc::kNotFound);
}

struct Counted {
    explicit Counted(int* count) : count_(count) { ++*count_; }
    Counted(const Counted& other) : count_(other.count_) { ++*count_; }
    Counted(Counted&& other) noexcept : count_(other.count_) { ++*count_; }
    Counted& operator=(const Counted&) = delete;
    ~Counted() { --*count_; }
    int* count_;
};

Task<void> holds(Counted, Reactor* reactor, bool suspend) {
    if (suspend) co_await reactor->yield();
}
Task<Counted> gives(Counted given) { co_return given; }

TEST_F(TaskTest, ArgumentsAndResultsAreDestroyedOnce) {
    int count = 0;
    {
        const Counted original(&count);
        run(holds(original, reactor_.get(), false));
        EXPECT_EQ(count, 1);
        run(holds(original, reactor_.get(), true));
        EXPECT_EQ(count, 1);
        const Counted result = run(gives(original));
        EXPECT_EQ(count, 2);
    }
    EXPECT_EQ(count, 0);
}

TEST_F(TaskTest, TaskThatIsNeverAwaitedFreesItsArguments) {
    int count = 0;
    {
        const Counted original(&count);
        const Task<void> never = holds(original, reactor_.get(), false);
        EXPECT_EQ(count, 2);
    }
    EXPECT_EQ(count, 0);
}

Task<int> awaits_member(Task<int>* task) { co_return co_await *task; }

TEST_F(TaskTest, TaskMayBeMadeNowAndAwaitedLater) {
    Task<int> first = at_once(1);
    Task<int> moved = std::move(first);
    first = at_once(2);
    moved = at_once(3);  // the one it held is freed
    EXPECT_EQ(run(awaits_member(&first)), 2);
    EXPECT_EQ(run(awaits_member(&moved)), 3);
}

#ifdef UBLKD_DCHECK
TEST_F(TaskTest, TaskUnderWayIsNotDestroyed) {
    const auto destroy_early = [] {
        Event never;
        struct Local {
            static Task<void> wait(Event* event) { co_await event->wait(); }
        };
        Task<void> task = Local::wait(&never);
        (void)task.operator co_await().await_suspend(std::noop_coroutine());
        task = Task<void>();
    };
    EXPECT_DEATH(destroy_early(), "a Task under way is not destroyed");
}
#endif

}  // namespace
}  // namespace ublkd::io
