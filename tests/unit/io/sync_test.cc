// Goal: Event, Semaphore, Gate and TaskGroup: who waits is woken once, in order, and never from
// inside the waking call.
#include "ublkd/io/sync.h"

#include <string>
#include <vector>

#include "tests/unit/io/io_fixture.h"

namespace ublkd::io {
namespace {

using SyncTest = IoTest;
using std::chrono::milliseconds;

Task<void> wait_and_note(Event* event, std::string* log, char name) {
    co_await event->wait();
    log->push_back(name);
}

Task<void> set_with_waiters(Reactor* reactor, std::string* log) {
    Event event;
    TaskGroup group;
    group.start(wait_and_note(&event, log, 'a'));
    group.start(wait_and_note(&event, log, 'b'));
    event.pulse();
    log->push_back('.');  // the woken run later, not inside pulse()
    co_await reactor->yield();
    EXPECT_FALSE(event.is_set());
    group.start(wait_and_note(&event, log, 'c'));
    event.set();
    group.start(wait_and_note(&event, log, 'd'));  // set: goes on at once
    log->push_back('.');
    co_await group.wait();
    event.reset();
    EXPECT_FALSE(event.is_set());
}

TEST_F(SyncTest, EventWakesInOrderAndNotFromWithinTheCall) {
    std::string log;
    run(set_with_waiters(reactor_.get(), &log));
    EXPECT_EQ(log, ".abd.c");
}

Task<void> take(Semaphore* semaphore, std::uint64_t units, std::string* log, char name,
                Reactor* reactor) {
    co_await semaphore->acquire(units);
    log->push_back(name);
    for (int i = 0; i < 3; ++i) co_await reactor->yield();
    semaphore->release(units);
}

Task<void> take_all(Semaphore* semaphore, std::string* log, Reactor* reactor) {
    TaskGroup group;
    group.start(take(semaphore, 3, log, 'a', reactor));
    group.start(take(semaphore, 4, log, 'B', reactor));  // does not fit beside a
    group.start(take(semaphore, 1, log, 'c', reactor));  // would fit, but does not overtake B
    EXPECT_FALSE(semaphore->try_acquire(1));
    EXPECT_TRUE(semaphore->has_waiters());
    co_await group.wait();
}

TEST_F(SyncTest, SemaphoreIsFirstComeFirstServed) {
    Semaphore semaphore(4);
    std::string log;
    run(take_all(&semaphore, &log, reactor_.get()));
    EXPECT_EQ(log, "aBc");
    EXPECT_EQ(semaphore.available(), 4U);
    EXPECT_TRUE(semaphore.try_acquire(4));
    semaphore.release(4);
}

Task<void> count_down(Reactor* reactor, int turns, int* running) {
    ++*running;
    for (int i = 0; i < turns; ++i) co_await reactor->yield();
    --*running;
}

Task<void> open_and_close(Reactor* reactor, int* running) {
    Gate gate;
    for (int i = 0; i < 10; ++i) {
        const bool started = spawn(gate, count_down(reactor, i, running));
        EXPECT_TRUE(started);
    }
    EXPECT_EQ(*running, 9);  // the one of no turns has ended
    EXPECT_EQ(gate.count(), 9U);
    gate.begin_close();
    const bool refused = spawn(gate, count_down(reactor, 1, running));
    EXPECT_FALSE(refused);
    EXPECT_FALSE(gate.try_enter());
    co_await gate.close();
    EXPECT_EQ(*running, 0);
}

TEST_F(SyncTest, GateClosesWhenAllHaveLeftAndRefusesNewcomers) {
    int running = 0;
    run(open_and_close(reactor_.get(), &running));
    EXPECT_EQ(running, 0);
    run(open_and_close(reactor_.get(), &running));
}

Task<void> group_twice(Reactor* reactor, int* running) {
    TaskGroup group;
    co_await group.wait();  // nothing started
    for (int round = 0; round < 2; ++round) {
        for (int i = 0; i < 5; ++i) group.start(count_down(reactor, i, running));
        co_await group.wait();
        EXPECT_EQ(*running, 0);
    }
}

TEST_F(SyncTest, TaskGroupWaitsForAllAndMayBeUsedAgain) {
    int running = 0;
    run(group_twice(reactor_.get(), &running));
}

Task<void> set_later(Reactor* reactor, Event* event, milliseconds delay) {
    co_await reactor->sleep_for(delay);
    event->set();
}

Task<void> timed_waits(Reactor* reactor) {
    Event event;
    const auto begin = Clock::now();
    const bool in_time = co_await reactor->wait_until(&event, begin + milliseconds(20));
    EXPECT_FALSE(in_time);
    EXPECT_GE(Clock::now() - begin, milliseconds(20));
    TaskGroup group;
    group.start(set_later(reactor, &event, milliseconds(5)));
    const bool set = co_await reactor->wait_until(&event, Clock::now() + std::chrono::hours(1));
    EXPECT_TRUE(set);
    EXPECT_LT(Clock::now() - begin, std::chrono::minutes(1));
    const bool already = co_await reactor->wait_until(&event, begin);
    EXPECT_TRUE(already);
    co_await group.wait();
}

TEST_F(SyncTest, WaitForAnEventEndsWithTheEventOrTheTime) { run(timed_waits(reactor_.get())); }

Task<void> timed_out_one_between_others(Reactor* reactor, std::string* log) {
    Event event;
    TaskGroup group;
    group.start(wait_and_note(&event, log, 'a'));
    struct Local {
        static Task<void> timed(Reactor* on, Event* of, std::string* to) {
            const bool set = co_await on->wait_until(of, Clock::now() + milliseconds(1));
            to->push_back(set ? 'S' : 't');
        }
    };
    group.start(Local::timed(reactor, &event, log));
    group.start(wait_and_note(&event, log, 'c'));
    co_await reactor->sleep_for(milliseconds(10));
    event.set();
    co_await group.wait();
}

TEST_F(SyncTest, WaiterThatTimesOutLeavesTheOthersInTheQueue) {
    std::string log;
    run(timed_out_one_between_others(reactor_.get(), &log));
    EXPECT_EQ(log, "tac");
}

TEST_F(SyncTest, ObjectsWithWaitersAreNotDestroyed) {
    EXPECT_DEATH(
        {
            Gate gate;
            (void)gate.try_enter();
        },
        "a Gate is closed before it is destroyed");
}

}  // namespace
}  // namespace ublkd::io
