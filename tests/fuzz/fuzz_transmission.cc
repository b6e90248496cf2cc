// libFuzzer target: arbitrary bytes as a client's side of the transmission phase, over a real
// socket pair and the reactor, with a memory device below. The first byte chooses what was
// negotiated, the second how the bytes are cut. Checked beside the sanitizers: the connection ends,
// every buffer comes back, and what the server sent is well-formed.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "ublkd/base/check.h"
#include "ublkd/block/memory_device.h"
#include "ublkd/front/nbd/transmission.h"

namespace {

using namespace ublkd;
using namespace ublkd::front::nbd;
using Bytes = std::vector<std::byte>;

constexpr std::size_t kDeviceBytes = 4 * kMiB;
constexpr std::size_t kMaxInput = 1U << 20;

/// Memory; with `slow`, requests take a turn of the loop or two, so that many are in flight.
class FuzzDevice final : public block::BlockDevice {
  public:
    FuzzDevice() : memory_(block::Geometry{.size_bytes = kDeviceBytes}) {}
    const block::Geometry& geometry() const override { return memory_.geometry(); }
    bool slow = false;
    bool failing = false;

  private:
    io::Task<Result<void>> pass() {
        if (slow) co_await io::Reactor::current()->yield();
        if (failing && ++calls_ % 3 == 0) co_return fail(Errc::kIo, "made to fail");
        co_return Result<void>{};
    }
    io::Task<Result<void>> do_read(std::uint64_t at, std::span<std::byte> into) override {
        CO_TRY(co_await pass());
        co_return co_await memory_.read(at, into);
    }
    io::Task<Result<void>> do_write(std::uint64_t at, std::span<const std::byte> data,
                                    block::WriteOptions options) override {
        CO_TRY(co_await pass());
        co_return co_await memory_.write(at, data, options);
    }
    io::Task<Result<void>> do_flush() override { co_return co_await pass(); }
    io::Task<Result<void>> do_discard(Range range, block::WriteOptions options) override {
        CO_TRY(co_await pass());
        co_return co_await memory_.discard(range, options);
    }
    io::Task<Result<void>> do_write_zeroes(Range range, block::ZeroOptions options) override {
        CO_TRY(co_await pass());
        co_return co_await memory_.write_zeroes(range, options);
    }
    io::Task<Result<std::vector<block::Extent>>> do_block_status(Range range,
                                                                 std::size_t most) override {
        CO_TRY(co_await pass());
        co_return co_await memory_.block_status(range, most);
    }
    block::MemoryDevice memory_;
    unsigned calls_ = 0;
};

struct World {
    std::unique_ptr<io::Reactor> reactor;
    std::unique_ptr<io::BufferPool> buffers;
    FuzzDevice device;
    SharedExport shared;

    World() {
        auto made = io::Reactor::create({.entries = 128, .registered_files = 16});
        auto pool = io::BufferPool::create(4 * kMiB);
        CHECK(made && pool, "a reactor and its buffers");
        reactor = std::move(*made);
        buffers = std::move(*pool);
        shared.device = &device;
        shared.reactor = reactor.get();
        shared.buffers = buffers.get();
    }
};

/// The client: sends `input` in pieces and takes what comes, without ever blocking.
io::Task<void> be_client(io::Reactor* reactor, int fd, std::span<const std::byte> input,
                         std::size_t piece, bool takes_replies, Bytes* taken) {
    Bytes room(65536);
    std::size_t sent = 0;
    bool open = true;
    while (open && sent < input.size()) {
        const std::size_t bytes = std::min(piece, input.size() - sent);
        const auto put = ::send(fd, input.data() + sent, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (put > 0) sent += static_cast<std::size_t>(put);
        if (put < 0 && errno != EAGAIN) open = false;
        if (takes_replies) {
            const auto got = ::recv(fd, room.data(), room.size(), MSG_DONTWAIT);
            if (got > 0) taken->insert(taken->end(), room.begin(), room.begin() + got);
            if (got == 0) open = false;
        } else if (put < 0) {
            open = false;  // full: this one closes instead of waiting
        }
        co_await reactor->yield();
    }
    if (!takes_replies) {
        ::close(fd);
        co_return;
    }
    (void)::shutdown(fd, SHUT_WR);
    for (;;) {
        const auto got = ::recv(fd, room.data(), room.size(), MSG_DONTWAIT);
        if (got > 0) taken->insert(taken->end(), room.begin(), room.begin() + got);
        if (got == 0 || (got < 0 && errno != EAGAIN)) break;
        co_await reactor->yield();
    }
    ::close(fd);
}

io::Task<void> be_server(World* world, Negotiated negotiated, int fd) {
    const TransmissionLimits limits{
        .requests = 16, .bytes = 2 * kMiB, .drain_timeout = std::chrono::seconds(5)};
    Transmission transmission(io::Socket(*world->reactor, fd), {}, &world->shared, negotiated,
                              limits);
    co_await transmission.run();
}

io::Task<void> converse(World* world, Negotiated negotiated, std::span<const std::byte> input,
                        std::size_t piece, bool takes_replies, Bytes* taken) {
    int ends[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "a socket pair");
    io::TaskGroup both;
    both.start(be_server(world, negotiated, ends[0]));
    both.start(be_client(world->reactor.get(), ends[1], input, piece, takes_replies, taken));
    co_await both.wait();
}

/// With structured replies every message says how long it is.
void check_chunks(const Bytes& taken) {
    std::size_t at = 0;
    while (at + kSimpleReplyBytes <= taken.size()) {
        const auto magic = load_be<std::uint32_t>(taken.data() + at);
        if (magic == kSimpleReplyMagic) {
            CHECK(load_be<std::uint32_t>(taken.data() + at + 4) == 0, "errors are chunks");
            at += kSimpleReplyBytes;
            continue;
        }
        CHECK(magic == kStructuredReplyMagic, "a message starts with its magic");
        if (at + kChunkHeaderBytes > taken.size()) break;
        const auto length = load_be<std::uint32_t>(taken.data() + at + 16);
        CHECK(length <= kMaxPayloadBytes + 8, "a chunk's length");
        at += kChunkHeaderBytes + length;
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static World* const world = new World();  // for the whole run; its thread is this one
    if (size < 2 || size > kMaxInput) return 0;
    const unsigned choice = data[0];
    const Negotiated negotiated{.structured_replies = (choice & 1) != 0,
                                .allocation_context = (choice & 3) == 3,
                                .knows_block_sizes = (choice & 4) != 0};
    world->device.slow = (choice & 8) != 0;
    world->device.failing = (choice & 16) != 0;
    const bool takes_replies = (choice & 32) == 0;
    // At most 128 pieces, so that a large input is not a slow one.
    const std::size_t piece = data[1] == 0 ? size : std::max(std::size_t{data[1]} * 37, size / 128);
    const auto input = std::as_bytes(std::span<const std::uint8_t>(data + 2, size - 2));
    Bytes taken;
    world->reactor->run_until_complete(
        converse(world, negotiated, input, piece, takes_replies, &taken));
    CHECK(world->buffers->free_bytes() == world->buffers->capacity_bytes(), "buffers come back");
    CHECK(world->shared.large_reads.available() == SharedExport::kLargeReadBytes,
          "memory of large reads comes back");
    if (negotiated.structured_replies) check_chunks(taken);
    return 0;
}
