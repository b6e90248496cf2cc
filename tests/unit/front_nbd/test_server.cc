#include "tests/unit/front_nbd/test_server.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <thread>

namespace ublkd::front::nbd::test {
namespace {

std::string make_folder() {
    char name[] = "/tmp/ublkd-nbd-test.XXXXXX";
    const char* const made = mkdtemp(name);
    EXPECT_NE(made, nullptr);
    return made;
}

}  // namespace

TestServer::TestServer(TestServerOptions options)
    : options_(std::move(options)),
      folder_(make_folder()),
      path_(folder_ + "/nbd.sock"),
      disk_(options_.geometry),
      endless_(8 * kTiB) {
    auto thread = io::ReactorThread::start("nbd", {});
    EXPECT_TRUE(thread.has_value());
    thread_ = std::move(*thread);
    if (options_.other_reactor) {
        auto home = io::ReactorThread::start("home", {});
        EXPECT_TRUE(home.has_value());
        home_ = std::move(*home);
    }
    EXPECT_TRUE(io::run_on(home(), [this] { return make_buffers(); }));
    EXPECT_TRUE(io::run_on(thread_->reactor(), [this] { return start(); }));
}

TestServer::~TestServer() {
    disk_.hold = false;
    stop();
    EXPECT_EQ(holders, 0) << "every opened export is let go";
    EXPECT_TRUE(io::run_on(home(), [this] { return drop_buffers(); }))
        << "every buffer is given back";
    thread_.reset();
    home_.reset();
    EXPECT_NE(access(path_.c_str(), F_OK), 0) << "the socket's name is removed at stop()";
    (void)rmdir(folder_.c_str());
}

io::Task<bool> TestServer::make_buffers() {
    auto buffers = io::BufferPool::create(options_.buffer_bytes);
    buffers_ = std::move(*buffers);
    co_return true;
}

io::Task<bool> TestServer::drop_buffers() {
    const bool whole = buffers_->free_bytes() == buffers_->capacity_bytes();
    buffers_.reset();
    co_return whole;
}

io::Task<bool> TestServer::start() {
    server_ =
        std::make_unique<NbdServer>(&thread_->reactor(), buffers_.get(), this, options_.server);
    const auto listening = server_->listen_unix(path_);
    const auto port = server_->listen_tcp("127.0.0.1", 0);
    if (port) port_ = *port;
    co_return listening&& port;
}

namespace {
io::Task<bool> stop_server(NbdServer* server) {
    co_await server->stop();
    co_return true;
}
io::Task<bool> disconnect_export(NbdServer* server, const std::string* name) {
    co_await server->disconnect(*name);
    co_return true;
}
io::Task<bool> begin_disconnect_export(NbdServer* server, const std::string* name) {
    server->begin_disconnect(*name);
    co_return true;
}
io::Task<unsigned> count_connections(NbdServer* server, const std::string* name) {
    co_return name == nullptr ? server->connections() : server->connections(*name);
}
io::Task<Result<std::uint16_t>> start_tcp(NbdServer* server, const std::string* address) {
    co_return server->listen_tcp(*address, 0);
}
io::Task<bool> call(void (*function)()) {
    function();
    co_return true;
}
io::Task<std::size_t> count_free(io::BufferPool* buffers) { co_return buffers->free_bytes(); }
}  // namespace

void TestServer::stop() {
    if (stopped_) return;
    stopped_ = true;
    io::run_on(thread_->reactor(), [this] { return stop_server(server_.get()); });
    server_.reset();
}
void TestServer::disconnect(const std::string& name) {
    io::run_on(thread_->reactor(),
               [this, &name] { return disconnect_export(server_.get(), &name); });
}
void TestServer::begin_disconnect(const std::string& name) {
    io::run_on(thread_->reactor(),
               [this, &name] { return begin_disconnect_export(server_.get(), &name); });
}
unsigned TestServer::connections() {
    return io::run_on(thread_->reactor(),
                      [this] { return count_connections(server_.get(), nullptr); });
}
unsigned TestServer::connections(const std::string& name) {
    return io::run_on(thread_->reactor(),
                      [this, &name] { return count_connections(server_.get(), &name); });
}
Result<std::uint16_t> TestServer::listen_tcp(const std::string& address) {
    return io::run_on(thread_->reactor(),
                      [this, &address] { return start_tcp(server_.get(), &address); });
}
std::size_t TestServer::free_buffer_bytes() {
    return io::run_on(home(), [this] { return count_free(buffers_.get()); });
}

void TestServer::run_on_server(void (*function)()) {
    io::run_on(thread_->reactor(), [function] { return call(function); });
}

bool TestServer::wait_for_connections(unsigned count) {
    for (int tries = 0; tries < 4000; ++tries) {
        if (connections() == count) return true;
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
}

io::Task<Result<ExportInfo>> TestServer::describe(const std::string& name) {
    ++describes;
    if (name == "disk" || name.empty())
        co_return ExportInfo{"disk", "a test disk", disk_.geometry()};
    if (name == "endless") co_return ExportInfo{"endless", "", endless_.geometry()};
    co_return fail(Errc::kNotFound, "export");
}

io::Task<Result<Export>> TestServer::open(const std::string& name) {
    while (hold_open) co_await thread_->reactor().sleep_for(std::chrono::milliseconds(1));
    if (refuse_open_with >= 0) co_return fail(Errc(refuse_open_with.load()), "switched to fail");
    const Result<ExportInfo> info = co_await describe(name);
    if (!info) co_return fail(info.error());
    ++opens;
    ++holders;
    Export opened;
    opened.info = *info;
    opened.device = info->name == "disk" ? static_cast<block::BlockDevice*>(&disk_) : &endless_;
    opened.home = &home();
    opened.buffers = buffers_.get();
    opened.holder =
        std::shared_ptr<void>(this, [](void* self) { --static_cast<TestServer*>(self)->holders; });
    co_return opened;
}

}  // namespace ublkd::front::nbd::test
