// Goal: the loop, timers, cancellation, hooks, a full ring, the end, and what is posted from other
// threads.
#include "ublkd/io/reactor.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "tests/unit/io/io_fixture.h"
#include "ublkd/io/kernel_probe.h"

namespace ublkd::io {
namespace {

using ReactorTest = IoTest;
using std::chrono::milliseconds;

Task<int> yields(Reactor* reactor, int times) {
    for (int i = 0; i < times; ++i) co_await reactor->yield();
    co_return times;
}

TEST_F(ReactorTest, TaskThatEndsFromTheReadyQueueIsNotSleptOver) {
    EXPECT_EQ(run(yields(reactor_.get(), 1)), 1);
    EXPECT_EQ(run(yields(reactor_.get(), 1000)), 1000);
}

Task<void> note_after(Reactor* reactor, milliseconds delay, std::vector<int>* order, int number) {
    co_await reactor->sleep_for(delay);
    order->push_back(number);
}

Task<void> three_sleepers(Reactor* reactor, std::vector<int>* order) {
    TaskGroup group;
    group.start(note_after(reactor, milliseconds(30), order, 3));
    group.start(note_after(reactor, milliseconds(10), order, 1));
    group.start(note_after(reactor, milliseconds(20), order, 2));
    group.start(note_after(reactor, milliseconds(0), order, 0));
    co_await group.wait();
}

TEST_F(ReactorTest, SleepersWakeInTheOrderOfTheirTimes) {
    std::vector<int> order;
    const auto begin = Clock::now();
    run(three_sleepers(reactor_.get(), &order));
    EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3}));
    EXPECT_GE(Clock::now() - begin, milliseconds(30));
}

Task<void> sleeps_zero(Reactor* reactor, int times, bool* stop) {
    for (int i = 0; i < times && !*stop; ++i)
        co_await reactor->sleep_until(Clock::now() - milliseconds(1));
}

Task<void> sleep_beside_busy_timers(Reactor* reactor) {
    bool stop = false;
    TaskGroup group;
    group.start(sleeps_zero(reactor, 1'000'000'000, &stop));
    co_await reactor->sleep_for(milliseconds(5));
    stop = true;
    co_await group.wait();
}

TEST_F(ReactorTest, TimersThatArmThemselvesForThePastDoNotStarveOthers) {
    run(sleep_beside_busy_timers(reactor_.get()));
}

struct CountingTimer : Reactor::Timer {
    int fired = 0;
};

Task<void> cancel_one_of_two(Reactor* reactor, CountingTimer* first, CountingTimer* second) {
    for (CountingTimer* timer : {first, second}) {
        timer->on_cqe = [](Completion* self, int, std::uint32_t) noexcept {
            ++static_cast<CountingTimer*>(self)->fired;
        };
        reactor->start_timer(timer, Clock::now() + milliseconds(5));
    }
    reactor->cancel_timer(first);
    co_await reactor->sleep_for(milliseconds(15));
    reactor->cancel_timer(first);  // neither is armed any more: nothing happens
    reactor->cancel_timer(second);
}

Task<void> until_called(Reactor* reactor, const int* calls) {
    const auto deadline = Clock::now() + std::chrono::seconds(60);
    while (*calls == 0 && Clock::now() < deadline)
        co_await reactor->sleep_for(std::chrono::milliseconds(1));
}

// That the end does not wait for one is tested where the kernel has such commands: tests/vm,
// daemon_stop().
TEST_F(ReactorTest, WhatIsSubmittedUntilTheEndCompletesAsAllElse) {
    const int fd = eventfd(1, EFD_CLOEXEC);
    struct Seen : Completion {
        int result = 0;
        int calls = 0;
    } seen;
    seen.on_cqe = [](Completion* self, int result, std::uint32_t) noexcept {
        static_cast<Seen*>(self)->result = result;
        ++static_cast<Seen*>(self)->calls;
    };
    io_uring_sqe sqe{};
    sqe.opcode = IORING_OP_POLL_ADD;
    sqe.fd = fd;
    sqe.poll32_events = POLLIN;
    const auto before = reactor_->stats().in_flight;
    reactor_->submit_until_end(sqe, &seen);
    EXPECT_EQ(reactor_->stats().in_flight, before + 1);
    reactor_->run_until_complete(until_called(reactor_.get(), &seen.calls));
    EXPECT_EQ(seen.calls, 1);
    EXPECT_EQ(seen.result, POLLIN);
    EXPECT_EQ(reactor_->stats().in_flight, before);
    ::close(fd);
}

TEST_F(ReactorTest, CancelledTimerDoesNotFire) {
    CountingTimer first;
    CountingTimer second;
    run(cancel_one_of_two(reactor_.get(), &first, &second));
    EXPECT_EQ(first.fired, 0);
    EXPECT_EQ(second.fired, 1);
}

Task<void> poll_once(Reactor* reactor, FdRef file, int* done) {
    const int result = co_await reactor->poll(file, POLLIN);
    EXPECT_GT(result, 0);
    ++*done;
}

Task<void> many_polls(Reactor* reactor, FdRef file, int count, int* done) {
    TaskGroup group;
    for (int i = 0; i < count; ++i) group.start(poll_once(reactor, file, done));
    co_await group.wait();
}

TEST_F(ReactorTest, FullSubmissionAndCompletionQueuesLoseNothing) {
    // 64 submission and 256 completion entries; 5000 requests that all complete at once, made in
    // one go.
    const int loud = eventfd(1, EFD_CLOEXEC);
    int done = 0;
    run(many_polls(reactor_.get(), FdRef{loud, -1}, 5000, &done));
    EXPECT_EQ(done, 5000);
    EXPECT_GT(reactor_->stats().queue_full, 0U);
    EXPECT_EQ(reactor_->stats().in_flight, 1U);  // the wake-up read
    ::close(loud);
}

Task<void> fill(Reactor* reactor, FdRef file, unsigned before, unsigned count, int* done) {
    TaskGroup group;
    for (unsigned i = 0; i < before; ++i) group.start(poll_once(reactor, file, done));
    EXPECT_TRUE(reactor->make_room(count));
    const auto enters = reactor->stats().enters;
    for (unsigned i = 0; i < count; ++i) group.start(poll_once(reactor, file, done));
    EXPECT_EQ(reactor->stats().enters, enters);
    co_await group.wait();
}

TEST_F(ReactorTest, AsManyRequestsAsRoomWasMadeForEnterTogether) {
    const int loud = eventfd(1, EFD_CLOEXEC);
    int done = 0;
    run(fill(reactor_.get(), FdRef{loud, -1}, 1, 64, &done));   // one more than fits
    run(fill(reactor_.get(), FdRef{loud, -1}, 63, 64, &done));  // of others' in the same turn
    EXPECT_EQ(done, 192);
    EXPECT_EQ(reactor_->stats().queue_full, 0U);
    EXPECT_FALSE(reactor_->make_room(65));
    ::close(loud);
}

TEST_F(ReactorTest, RequestsMadeInsideACompletionFindRoom) {
    struct Chain : Completion {
        Reactor* reactor = nullptr;
        int fd = -1;
        int left = 0;
        Event* done = nullptr;
        void again() {
            io_uring_sqe sqe{};
            io_uring_prep_poll_add(&sqe, fd, POLLIN);
            reactor->submit(sqe, this);
        }
    };
    const int loud = eventfd(1, EFD_CLOEXEC);
    Event done;
    std::vector<Chain> chains(500);
    int left = static_cast<int>(chains.size());
    static int* left_of_all = nullptr;
    left_of_all = &left;
    for (Chain& chain : chains) {
        chain.reactor = reactor_.get();
        chain.fd = loud;
        chain.left = 10;
        chain.done = &done;
        chain.on_cqe = [](Completion* self, int, std::uint32_t) noexcept {
            auto* const of = static_cast<Chain*>(self);
            if (--of->left > 0) return of->again();
            if (--*left_of_all == 0) of->done->set();
        };
        chain.again();
    }
    struct Local {
        static Task<void> wait(Event* event) { co_await event->wait(); }
    };
    run(Local::wait(&done));
    EXPECT_EQ(left, 0);
    ::close(loud);
}

struct NotingHook : TurnHook {
    std::vector<int>* order = nullptr;
    int number = 0;
    Reactor* reactor = nullptr;
    NotingHook* removes = nullptr;
    bool again = false;
};

NotingHook noting(Reactor* reactor, std::vector<int>* order, int number) {
    NotingHook hook;
    hook.order = order;
    hook.number = number;
    hook.reactor = reactor;
    hook.run = [](TurnHook* self) noexcept {
        auto* const own = static_cast<NotingHook*>(self);
        own->order->push_back(own->number);
        if (own->removes != nullptr) own->reactor->remove_hook(own->removes);
        if (std::exchange(own->again, false)) own->reactor->at_turn_end(own);
    };
    return hook;
}

TEST_F(ReactorTest, HooksRunOncePerArmingAndMayBeRemovedByOneAnother) {
    std::vector<int> order;
    NotingHook first = noting(reactor_.get(), &order, 1);
    NotingHook second = noting(reactor_.get(), &order, 2);
    NotingHook third = noting(reactor_.get(), &order, 3);
    first.removes = &second;
    third.again = true;
    for (NotingHook* hook : {&first, &second, &third}) {
        reactor_->at_turn_end(hook);
        reactor_->at_turn_end(hook);  // armed already
    }
    (void)run(yields(reactor_.get(), 5));
    EXPECT_EQ(order, (std::vector<int>{1, 3, 3}));
    reactor_->at_turn_end(&second);
    reactor_->remove_hook(&second);
    (void)run(yields(reactor_.get(), 5));
    EXPECT_EQ(order.size(), 3U);
}

Task<void> write_with_hook(Reactor* reactor, int fd, NotingHook* hook, bool only_wait) {
    static const std::byte kByte{7};
    Operation operation = only_wait ? reactor->poll(FdRef{fd, -1}, POLLOUT)
                                    : reactor->write(FdRef{fd, -1}, std::span(&kByte, 1), 0);
    reactor->at_turn_end(hook);
    (void)co_await operation;
}

TEST_F(ReactorTest, WorkEntersTheKernelBeforeHooksRunAndWhatOnlyWaitsDoesNot) {
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    struct Looking : NotingHook {
        int fd = -1;
        char seen = 0;
    } hook;
    hook.fd = ends[0];
    hook.run = [](TurnHook* self) noexcept {
        auto* const own = static_cast<Looking*>(self);
        if (::read(own->fd, &own->seen, 1) != 1) own->seen = 0;
    };
    (void)run(yields(reactor_.get(), 2));
    run(write_with_hook(reactor_.get(), ends[1], &hook, false));
    EXPECT_EQ(hook.seen, 7);
    const std::uint64_t enters = reactor_->stats().enters;
    run(write_with_hook(reactor_.get(), ends[1], &hook, true));
    EXPECT_EQ(reactor_->stats().enters - enters, 1U);
    ::close(ends[0]);
    ::close(ends[1]);
}

TEST_F(ReactorTest, ThePostedRunInOrderAndNoneIsLost) {
    // Short bursts with pauses, so that posts meet the reactor awake, asleep, and about to sleep.
    constexpr int kThreads = 4;
    constexpr int kEach = 3000;
    std::vector<int> next(kThreads, 0);
    int total = 0;
    Event done;
    std::vector<std::thread> threads;
    for (int thread = 0; thread < kThreads; ++thread) {
        threads.emplace_back([&, thread] {
            for (int i = 0; i < kEach; ++i) {
                reactor_->post([&, thread, i] {
                    EXPECT_EQ(next[static_cast<std::size_t>(thread)]++, i);
                    if (++total == kThreads * kEach) done.set();
                });
                if (i % 16 == thread) std::this_thread::sleep_for(std::chrono::microseconds(20));
            }
        });
    }
    struct Local {
        static Task<void> wait(Event* event) { co_await event->wait(); }
    };
    run(Local::wait(&done));
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(total, kThreads * kEach);
    EXPECT_EQ(reactor_->stats().posted, static_cast<std::uint64_t>(kThreads * kEach));
}

TEST_F(ReactorTest, EachSinglePostWakesASleepingReactor) {
    std::atomic<int> seen = 0;
    std::thread other([&] {
        for (int i = 1; i <= 300; ++i) {
            reactor_->post([&seen, i] { seen = i; });
            while (seen.load() != i) std::this_thread::yield();
        }
        reactor_->stop();
    });
    reactor_->run();
    other.join();
    EXPECT_EQ(seen.load(), 300);
}

TEST_F(ReactorTest, PostedBeforeStopStillRuns) {
    bool ran = false;
    reactor_->post([&] {
        reactor_->post([&] { ran = true; });
        reactor_->stop();
    });
    reactor_->run();
    EXPECT_TRUE(ran);
    reactor_->stop();
    reactor_->run();  // and it may run again
}

TEST_F(ReactorTest, RegisteredFilesAreGivenBackAndTheTableMayBeFull) {
    const int fd = eventfd(1, EFD_CLOEXEC);
    std::vector<FdRef> files;
    for (int round = 0; round < 3; ++round) {
        for (int i = 0; i < 20; ++i) files.push_back(reactor_->register_fd(fd));
        int registered = 0;
        for (const FdRef& file : files) {
            if (file.registered >= 0) ++registered;
            int done = 0;
            run(poll_once(reactor_.get(), file, &done));
            EXPECT_EQ(done, 1);
        }
        EXPECT_EQ(registered, registered_files_close_at_once() ? 16 : 0);
        for (FdRef& file : files) reactor_->unregister_fd(file);
        files.clear();
    }
    ::close(fd);
}

Task<void> close_beside_a_waiting_request(Reactor* reactor, int waited_on, int wake, int* closed) {
    FdRef first = reactor->register_fd(waited_on);
    FdRef second = reactor->register_fd(*closed);
    int done = 0;
    TaskGroup group;
    group.start(poll_once(reactor, first, &done));
    for (int turn = 0; turn < 3; ++turn) co_await reactor->sleep_for(milliseconds(1));
    reactor->unregister_fd(second);
    ::close(*closed);
    pollfd hung_up{wake, POLLIN, 0};
    EXPECT_EQ(poll(&hung_up, 1, 1000), 1) << "the file is still open";
    EXPECT_EQ(done, 0);
    const std::uint64_t one = 1;
    EXPECT_EQ(::write(waited_on, &one, sizeof one), static_cast<ssize_t>(sizeof one));
    co_await group.wait();
    reactor->unregister_fd(first);
}

TEST_F(ReactorTest, FileIsClosedWhileAnEarlierRequestOnAnotherStillWaits) {
    const int waited_on = eventfd(0, EFD_CLOEXEC);
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    run(close_beside_a_waiting_request(reactor_.get(), waited_on, ends[0], &ends[1]));
    ::close(waited_on);
    ::close(ends[0]);
}

TEST_F(ReactorTest, DestroyingTheReactorEndsWhatIsInTheKernel) {
    int pipe_ends[2];
    ASSERT_EQ(pipe2(pipe_ends, O_CLOEXEC), 0);
    std::byte target[8] = {};
    Completion never;
    never.on_cqe = [](Completion*, int, std::uint32_t) noexcept {
        ADD_FAILURE() << "nobody is told any more";
    };
    io_uring_sqe sqe{};
    io_uring_prep_read(&sqe, pipe_ends[0], target, sizeof target, 0);
    reactor_->submit(sqe, &never);
    (void)run(yields(reactor_.get(), 2));
    EXPECT_EQ(reactor_->stats().in_flight, 2U);
    reactor_.reset();
    ASSERT_EQ(::write(pipe_ends[1], "abcdefgh", 8), 8);
    std::this_thread::sleep_for(milliseconds(5));
    EXPECT_EQ(target[0], std::byte{0});  // nobody reads into it any more
    char still_there[8];
    EXPECT_EQ(::read(pipe_ends[0], still_there, 8), 8);
    ::close(pipe_ends[0]);
    ::close(pipe_ends[1]);
}

TEST_F(ReactorTest, RunningATaskFromInsideTheLoopIsABug) {
    struct Local {
        static Task<void> inner(Reactor* reactor) {
            co_await reactor->yield();
            reactor->run_until_complete(nothing());
        }
        static Task<void> nothing() { co_return; }
    };
    EXPECT_DEATH(run(Local::inner(reactor_.get())), "await the task");
}

}  // namespace
}  // namespace ublkd::io
