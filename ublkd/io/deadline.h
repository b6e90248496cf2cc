// A time by which what a socket's other side has to do is done, or the socket is shut down, so that
// whatever waits on it ends. Lives in the coroutine that waits.
#pragma once

#include "ublkd/io/reactor.h"
#include "ublkd/io/socket.h"

namespace ublkd::io {

class Deadline {
  public:
    Deadline(Socket* socket, Clock::time_point when) : reactor_(&socket->reactor()) {
        timer_.socket = socket;
        timer_.on_cqe = [](Completion* fired, int, std::uint32_t) noexcept {
            auto* const timer = static_cast<SocketTimer*>(fired);
            timer->passed = true;
            timer->socket->shutdown();
        };
        reactor_->start_timer(&timer_, when);
    }
    Deadline(const Deadline&) = delete;
    Deadline& operator=(const Deadline&) = delete;
    ~Deadline() { reactor_->cancel_timer(&timer_); }

    bool passed() const { return timer_.passed; }

  private:
    struct SocketTimer : Reactor::Timer {
        Socket* socket = nullptr;
        bool passed = false;
    };
    Reactor* reactor_;
    SocketTimer timer_;
};

}  // namespace ublkd::io
