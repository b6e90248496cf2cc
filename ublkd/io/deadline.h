// A deadline for one Operation: cancels it when due. Used like this:
//   Operation operation = reactor.receive(...);
//   Deadline deadline(reactor, operation, when);
//   const int result = co_await operation;          // -ECANCELED where the deadline came first
//   if (deadline.expired()) ...
#pragma once

#include "ublkd/io/reactor.h"

namespace ublkd::io {

class Deadline {
  public:
    Deadline(Reactor& reactor, Operation& operation, Clock::time_point when)
        : reactor_(&reactor), operation_(&operation) {
        timer_.deadline = this;
        timer_.on_cqe = [](Completion* fired, int, std::uint32_t) noexcept {
            Deadline* const self = static_cast<OwnTimer*>(fired)->deadline;
            self->expired_ = true;
            self->reactor_->cancel(self->operation_);
        };
        reactor.start_timer(&timer_, when);
    }
    Deadline(const Deadline&) = delete;
    Deadline& operator=(const Deadline&) = delete;
    ~Deadline() { reactor_->cancel_timer(&timer_); }

    bool expired() const { return expired_; }

  private:
    struct OwnTimer : Reactor::Timer {
        Deadline* deadline = nullptr;
    };
    Reactor* reactor_;
    Operation* operation_;
    OwnTimer timer_;
    bool expired_ = false;
};

}  // namespace ublkd::io
