// Questions to a reactor of threads that may wait for a bounded time alone: what is the case, and
// not a request. A disk that hangs may hold up the reactor whole (docs/volume.md), and who asks has
// to be told just that. Who asked goes on without an answer; the question is taken when the reactor
// goes on, before what it is given later, so it may refer to what only ends by way of the reactor.
// While one is that late no other waits. Thread-safe. Owner: Lane.
#pragma once

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <type_traits>
#include <utility>

#include "ublkd/base/check.h"
#include "ublkd/base/result.h"
#include "ublkd/io/reactor.h"

namespace ublkd::daemon {

class Questions {
  public:
    using Clock = std::chrono::steady_clock;
    static constexpr auto kLimit = std::chrono::seconds(2);

    /// A question that was asked; its answer is waited for once.
    template <class T>
    class Asked {
      public:
        /// kTimedOut: there is no answer (yet).
        Result<T> wait_until(Clock::time_point deadline) {
            if (!state_) return no_answer();
            auto answer = state_->answer.get_future();
            if (answer.wait_until(deadline) != std::future_status::ready &&
                state_->stage.exchange(Stage::kLate) == Stage::kOpen) {
                ++*late_;
                return no_answer();
            }
            return answer.get();
        }

      private:
        friend class Questions;
        enum class Stage { kOpen, kLate, kAnswered };
        struct State {
            std::promise<T> answer;
            std::atomic<Stage> stage = Stage::kOpen;
        };
        static std::unexpected<Error> no_answer() {
            return fail(Errc::kTimedOut, "its reactor does not answer");
        }
        std::shared_ptr<State> state_;  // none: an earlier question is late
        std::shared_ptr<std::atomic<int>> late_;
    };

    /// Not on a reactor's thread. `function` may run when nobody waits any more.
    template <class F>
    auto begin(io::Reactor& reactor, F function) {
        CHECK(io::Reactor::current() == nullptr, "who waits for a reactor is none");
        using T = std::invoke_result_t<F>;
        Asked<T> asked;
        if (is_late()) return asked;
        asked.state_ = std::make_shared<typename Asked<T>::State>();
        asked.late_ = late_;
        reactor.post([state = asked.state_, late = late_, function = std::move(function)] {
            using Stage = typename Asked<T>::Stage;
            state->answer.set_value(function());
            if (state->stage.exchange(Stage::kAnswered) == Stage::kLate) --*late;
        });
        return asked;
    }
    template <class F>
    Result<std::invoke_result_t<F>> ask(io::Reactor& reactor, F function) {
        return begin(reactor, std::move(function)).wait_until(Clock::now() + kLimit);
    }
    /// Whether somebody waited in vain, and the reactor has not gone on since.
    bool is_late() const { return *late_ > 0; }

  private:
    std::shared_ptr<std::atomic<int>> late_ = std::make_shared<std::atomic<int>>(0);
};

}  // namespace ublkd::daemon
