// A reactor that hangs is one whose thread waits for the test.
#include "ublkd/daemon/questions.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>

#include "ublkd/io/worker.h"

namespace ublkd::daemon {
namespace {

using namespace std::chrono_literals;
using Clock = Questions::Clock;

class QuestionsTest : public testing::Test {
  protected:
    void SetUp() override {
        auto started = io::ReactorThread::start("test", {});
        ASSERT_TRUE(started);
        thread_ = std::move(*started);
    }
    void TearDown() override { thread_.reset(); }
    void hang() {
        thread_->reactor().post([gate = gate_.get_future().share()] { gate.wait(); });
    }
    void go_on() { gate_.set_value(); }
    io::Reactor& reactor() { return thread_->reactor(); }

    Questions questions_;
    std::promise<void> gate_;
    std::unique_ptr<io::ReactorThread> thread_;
};

TEST_F(QuestionsTest, AreAnswered) {
    EXPECT_EQ(questions_.ask(reactor(), [] { return 7; }).value(), 7);
    EXPECT_FALSE(questions_.is_late());
}

TEST_F(QuestionsTest, WhoAsksGoesOnWhereTheReactorHangs) {
    hang();
    auto first = questions_.begin(reactor(), [] { return 7; });
    EXPECT_EQ(first.wait_until(Clock::now() + 20ms).error().code, Errc::kTimedOut);
    EXPECT_TRUE(questions_.is_late());
    // The next does not wait at all, and is not put: nothing piles up.
    const auto began = Clock::now();
    const auto next = questions_.ask(reactor(), [] {
        ADD_FAILURE() << "taken";
        return 8;
    });
    EXPECT_EQ(next.error().code, Errc::kTimedOut);
    EXPECT_LT(Clock::now() - began, 1s);
    go_on();
    for (const auto end = Clock::now() + 10s; questions_.is_late() && Clock::now() < end;)
        std::this_thread::sleep_for(1ms);
    EXPECT_EQ(questions_.ask(reactor(), [] { return 9; }).value(), 9);
}

TEST_F(QuestionsTest, AnswerThatComesWhileNobodyWaitsYetIsHadLater) {
    auto asked = questions_.begin(reactor(), [] { return 7; });
    EXPECT_EQ(questions_.ask(reactor(), [] { return 8; }).value(), 8);  // after it
    EXPECT_EQ(asked.wait_until(Clock::now()).value(), 7);
    EXPECT_FALSE(questions_.is_late());
}

}  // namespace
}  // namespace ublkd::daemon
