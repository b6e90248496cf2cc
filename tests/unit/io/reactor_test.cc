// Goal: the loop, timers, cancellation, and what is posted from other threads.
#include "ublkd/io/reactor.h"

#include <gtest/gtest.h>

namespace ublkd::io {
namespace {

class ReactorTest : public ::testing::Test {
  protected:
    std::unique_ptr<Reactor> reactor_ = std::move(*Reactor::create());
};

Task<int> yields(Reactor* reactor, int times) {
    for (int i = 0; i < times; ++i) co_await reactor->yield();
    co_return times;
}

TEST_F(ReactorTest, TaskThatEndsFromTheReadyQueueIsNotSleptOver) {
    EXPECT_EQ(reactor_->run_until_complete(yields(reactor_.get(), 1)), 1);
    EXPECT_EQ(reactor_->run_until_complete(yields(reactor_.get(), 5)), 5);
}

}  // namespace
}  // namespace ublkd::io
