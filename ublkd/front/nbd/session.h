// One connection from accept to its end: the handshake here, then its transmission on the export's
// reactor. Owner: NbdServer, on its reactor; all calls are made there. run() ends when nothing of
// the connection is left anywhere.
#pragma once

#include <coroutine>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ublkd/front/nbd/handshake.h"
#include "ublkd/front/nbd/nbd_server.h"
#include "ublkd/front/nbd/transmission.h"

namespace ublkd::front::nbd {

class Session {
  public:
    Session(NbdServer* server, io::Socket socket);
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    io::Task<void> run();
    /// Ends a client that still shakes hands; one in transmission goes on.
    void cancel_handshake();
    /// Answers what is in flight, then ends.
    void drain();
    /// ExportInfo::name once the export is open.
    const std::string& export_name() const { return opened_.info.name; }

  private:
    /// What the two reactors of a connection share. Its fields are used on the export's reactor
    /// alone.
    struct Control {
        Transmission* live = nullptr;
        bool drain = false;
    };
    /// co_await: runs the transmission on another reactor and comes back when it has ended.
    struct Elsewhere {
        Session* session;
        bool await_ready() const noexcept { return false; }
        void await_suspend(std::coroutine_handle<> self) const;
        void await_resume() const noexcept {}
    };

    io::Task<bool> shake_hands();
    io::Task<void> ask_directory();
    io::Task<bool> send_output();
    io::Task<bool> start_tls();
    io::Task<bool> receive();
    io::Task<void> transmit();
    io::Task<void> serve(Control* control);
    static io::detail::Detached serve_elsewhere(Session* session, std::coroutine_handle<> waiting);
    std::span<const std::byte> received() const { return {input_.data() + begin_, end_ - begin_}; }

    NbdServer* server_;
    io::Socket socket_;
    Handshake handshake_;
    std::vector<std::byte> input_;
    std::size_t begin_ = 0;
    std::size_t end_ = 0;
    bool cancelled_ = false;
    bool in_transmission_ = false;
    Export opened_;
    std::shared_ptr<SharedExport> shared_;
    std::shared_ptr<Control> control_ = std::make_shared<Control>();
    io::SocketInTransit in_transit_;
    io::Clock::time_point handshake_ends_;
};

}  // namespace ublkd::front::nbd
