// A server on a reactor thread of its own, with one export ("disk") of a SwitchedDevice and one
// ("endless") of 8 TiB; with `other_reactor` the exports live on a second reactor.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "tests/unit/front_nbd/raw_client.h"
#include "tests/unit/front_nbd/test_devices.h"
#include "ublkd/front/nbd/nbd_server.h"
#include "ublkd/io/worker.h"

namespace ublkd::front::nbd::test {

struct TestServerOptions {
    NbdServerOptions server;
    block::Geometry geometry{.size_bytes = 64 * kMiB};
    std::size_t buffer_bytes = 16 * kMiB;
    bool other_reactor = false;
};

class TestServer final : public ExportDirectory {
  public:
    explicit TestServer(TestServerOptions options = {});
    ~TestServer() override;

    RawClient connect() const { return RawClient::connect_unix(path_); }
    RawClient connect_tcp() const { return RawClient::connect_tcp(port_); }
    SwitchedDevice& disk() { return disk_; }
    const std::string& path() const { return path_; }

    /// On the server's reactor; wait for the result.
    unsigned connections();
    unsigned connections(const std::string& name);
    /// Waits until there are `count` connections; false after 20 seconds.
    bool wait_for_connections(unsigned count);
    void stop();
    void disconnect(const std::string& name);
    void begin_disconnect(const std::string& name);
    Result<std::uint16_t> listen_tcp(const std::string& address);
    std::size_t free_buffer_bytes();
    void run_on_server(void (*function)());

    // ExportDirectory
    std::vector<std::string> list() override { return {"disk", "endless"}; }
    io::Task<Result<ExportInfo>> describe(const std::string& name) override;
    io::Task<Result<Export>> open(const std::string& name) override;

    std::atomic<unsigned> opens = 0;
    std::atomic<unsigned> describes = 0;
    std::atomic<int> refuse_open_with = -1;  // an Errc
    std::atomic<bool> hold_open = false;
    std::atomic<int> holders = 0;  // opened exports that are not yet let go

  private:
    io::Task<bool> start();
    io::Task<bool> make_buffers();
    io::Task<bool> drop_buffers();
    io::Reactor& home() { return home_ ? home_->reactor() : thread_->reactor(); }

    TestServerOptions options_;
    std::string folder_;
    std::string path_;
    std::uint16_t port_ = 0;
    SwitchedDevice disk_;
    EndlessDevice endless_;
    std::unique_ptr<io::ReactorThread> thread_;
    std::unique_ptr<io::ReactorThread> home_;
    std::unique_ptr<io::BufferPool> buffers_;
    std::unique_ptr<NbdServer> server_;
    bool stopped_ = false;
};

}  // namespace ublkd::front::nbd::test
