#include "ublkd/front/nbd/session.h"

#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "ublkd/base/check.h"
#include "ublkd/base/log.h"

namespace ublkd::front::nbd {
namespace {

/// Who uses a unix socket its kernel tells; nobody listens in there.
Tls tls_of(int fd, const NbdServerOptions& options) {
    int family = AF_UNSPEC;
    socklen_t length = sizeof family;
    (void)getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length);
    return options.tls && family != AF_UNIX ? Tls::kRequired : Tls::kOff;
}

}  // namespace

Session::Session(NbdServer* server, io::Socket socket)
    : server_(server),
      socket_(std::move(socket)),
      handshake_(tls_of(socket_.fd(), server->options_)),
      input_(kOptionHeaderBytes + Handshake::kMaxOptionBytes + kRequestBytes) {}

io::Task<void> Session::run() {
    struct HandshakeTimer : io::Reactor::Timer {
        Session* session = nullptr;
    } timer;
    timer.session = this;
    timer.on_cqe = [](io::Completion* fired, int, std::uint32_t) noexcept {
        log::debug("nbd: a client did not finish its handshake in time");
        static_cast<HandshakeTimer*>(fired)->session->cancel_handshake();
    };
    handshake_ends_ = io::Clock::now() + server_->options_.handshake_timeout;
    server_->reactor_->start_timer(&timer, handshake_ends_);
    const bool agreed = co_await shake_hands();
    server_->reactor_->cancel_timer(&timer);
    if (handshake_.protocol_error() != nullptr)
        log::debug("nbd: handshake refused: {}", handshake_.protocol_error());
    if (agreed && !cancelled_) co_await transmit();
    socket_.close_now();
}

void Session::cancel_handshake() {
    if (in_transmission_) return;
    cancelled_ = true;
    socket_.shutdown();  // what waits for the client ends
}

void Session::drain() {
    if (!in_transmission_) {
        cancel_handshake();
        return;
    }
    io::Reactor* const home = opened_.home;
    home->post([control = control_] {
        control->drain = true;
        if (control->live != nullptr) control->live->drain();
    });
}

// ---- handshake

io::Task<bool> Session::shake_hands() {
    for (;;) {
        std::size_t used = 0;
        const Handshake::Step step = handshake_.next(received(), used);
        begin_ += used;
        if (step == Handshake::Step::kAsk) {
            co_await ask_directory();
            if (cancelled_) co_return false;
        }
        if (!handshake_.output().empty()) {
            const bool sent = co_await send_output();
            if (!sent) co_return false;
        }
        if (step == Handshake::Step::kStartTls) {
            const bool started = co_await start_tls();
            if (!started) co_return false;
        }
        if (step == Handshake::Step::kTransmission) co_return true;
        if (step == Handshake::Step::kClose) co_return false;
        if (step == Handshake::Step::kNeedBytes) {
            const bool more = co_await receive();
            if (!more) co_return false;
        }
    }
}

io::Task<void> Session::ask_directory() {
    ExportDirectory* const directory = server_->directory_;
    const std::string& name = handshake_.export_name();
    switch (handshake_.question()) {
        case Handshake::Question::kList:
            handshake_.answer_list(directory->list());
            co_return;
        case Handshake::Question::kDescribe: {
            const Result<ExportInfo> info = co_await directory->describe(name);
            handshake_.answer(info);
            co_return;
        }
        case Handshake::Question::kOpen:
            break;
    }
    Result<Export> opened = co_await directory->open(name);
    if (!opened) {
        handshake_.answer(fail(opened.error()));
        co_return;
    }
    opened_ = std::move(*opened);
    const Result<ExportInfo> info = opened_.info;
    handshake_.answer(info);
}

io::Task<bool> Session::send_output() {
    std::vector<std::byte>& output = handshake_.output();
    const Result<void> sent = co_await socket_.send_all(output);
    output.clear();
    co_return sent && !cancelled_;
}

io::Task<bool> Session::start_tls() {
    CHECK(received().empty(), "nothing in the clear is taken for what TLS protects");
    const Result<io::TlsPeer> peer =
        co_await socket_.start_tls(server_->options_.tls, handshake_ends_);
    if (!peer) log::debug("nbd: {}", to_string(peer.error()));
    if (!peer || cancelled_) co_return false;
    handshake_.tls_started();
    co_return true;
}

io::Task<bool> Session::receive() {
    std::memmove(input_.data(), input_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
    // next() takes every whole option, so there is room for at least the rest of one.
    const std::span<std::byte> room(input_.data() + end_, input_.size() - end_);
    const Result<std::size_t> got = co_await socket_.receive_some(room);
    if (!got || *got == 0 || cancelled_) co_return false;
    end_ += *got;
    co_return true;
}

// ---- transmission

io::Task<void> Session::transmit() {
    in_transmission_ = true;
    shared_ = server_->share(opened_);
    in_transit_ = socket_.leave();
    if (opened_.home == server_->reactor_) {
        co_await serve(control_.get());
    } else {
        co_await Elsewhere{this};
    }
    in_transmission_ = false;
    shared_.reset();
    opened_.holder.reset();
}

/// On the export's reactor.
io::Task<void> Session::serve(Control* control) {
    const NbdServerOptions& options = server_->options_;
    const TransmissionLimits limits{.requests = options.max_requests_in_flight,
                                    .bytes = options.max_bytes_in_flight,
                                    .drain_timeout = options.drain_timeout,
                                    .old_connections_timeout = options.old_connections_timeout};
    Transmission transmission(io::Socket(*shared_->reactor, std::move(in_transit_)), received(),
                              shared_.get(), handshake_.negotiated(), limits);
    std::vector<std::byte>().swap(input_);  // not needed any more
    control->live = &transmission;
    if (control->drain) transmission.drain();
    co_await transmission.run();
    control->live = nullptr;
}

void Session::Elsewhere::await_suspend(std::coroutine_handle<> self) const {
    session->shared_->reactor->post([session = session, self] { serve_elsewhere(session, self); });
}

io::detail::Detached Session::serve_elsewhere(Session* session, std::coroutine_handle<> waiting) {
    co_await session->serve(session->control_.get());
    session->server_->reactor_->post([waiting] { waiting.resume(); });
}

}  // namespace ublkd::front::nbd
