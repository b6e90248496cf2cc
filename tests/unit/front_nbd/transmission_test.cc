// The transmission phase over real sockets: every command and flag, the errors, unaligned requests,
// large ones, bounds. Hostile cases are numbered as in docs/nbd.md, "Hostile clients".
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <map>
#include <thread>

#include "tests/suites/seed.h"
#include "tests/unit/front_nbd/test_server.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::front::nbd::test {
namespace {

using namespace std::chrono_literals;

RawClient enter(const TestServer& server, bool structured = false, bool contexts = false,
                bool block_sizes = false, std::string_view name = "disk") {
    RawClient client = server.connect();
    EXPECT_TRUE(client.enter(name, structured, contexts, block_sizes));
    return client;
}

TEST(NbdTransmission, ReadsGiveWhatWasWritten) {
    TestServer server;
    for (const bool structured : {false, true}) {
        RawClient client = enter(server, structured);
        const Bytes data = pattern(8192, structured ? 1 : 2);
        EXPECT_EQ(client.write(4096, data), NbdError::kNone);
        const auto reply = client.call(Command::kRead, 4096, 8192);
        ASSERT_TRUE(reply);
        EXPECT_EQ(reply->structured, structured);
        EXPECT_EQ(reply->data, data);
        if (structured) {
            EXPECT_EQ(reply->chunk, Chunk::kOffsetData);
            EXPECT_EQ(reply->offset_bytes, 4096U);
            EXPECT_TRUE(reply->done);
        }
    }
}

TEST(NbdTransmission, FlushAndFuaReachTheDevice) {
    TestServer server;
    RawClient client = enter(server);
    EXPECT_EQ(client.write(0, pattern(512, 1)), NbdError::kNone);
    EXPECT_EQ(server.disk().fua_writes, 0U);
    EXPECT_EQ(client.write(0, pattern(512, 1), kFua), NbdError::kNone);
    EXPECT_EQ(server.disk().fua_writes, 1U);
    EXPECT_EQ(client.call(Command::kFlush, 0, 0)->error, NbdError::kNone);
    EXPECT_EQ(client.call(Command::kFlush, 0, 0, {}, kFua)->error, NbdError::kNone);
    EXPECT_EQ(server.disk().flushes, 2U);
    EXPECT_EQ(client.call(Command::kFlush, 512, 0)->error, NbdError::kInvalid);
    EXPECT_EQ(client.call(Command::kFlush, 0, 512)->error, NbdError::kInvalid);
}

TEST(NbdTransmission, TrimAndWriteZeroesReadAsZeroes) {
    TestServer server;
    RawClient client = enter(server);
    const Bytes zeroes(65536);
    EXPECT_EQ(client.write(0, pattern(131072, 1)), NbdError::kNone);
    EXPECT_EQ(client.call(Command::kTrim, 0, 65536, {}, kFua)->error, NbdError::kNone);
    EXPECT_EQ(client.read(0, 65536), zeroes);
    EXPECT_EQ(
        client.call(Command::kWriteZeroes, 65536, 65536, {}, kFua | kNoHole | kFastZero)->error,
        NbdError::kNone);
    EXPECT_TRUE(server.disk().last_zero_kept);
    EXPECT_EQ(client.read(65536, 65536), zeroes);
    server.disk().slow_zeroes = true;
    EXPECT_EQ(client.call(Command::kWriteZeroes, 0, 4096, {}, kFastZero)->error,
              NbdError::kNotSupported);
    EXPECT_EQ(client.call(Command::kWriteZeroes, 0, 4096)->error, NbdError::kNone);
    EXPECT_FALSE(server.disk().last_zero_kept);
    EXPECT_EQ(client.call(Command::kCache, 0, 4096)->error, NbdError::kNone);
}

TEST(NbdTransmission, TrimAndZeroesOfMoreThanTheDeviceTakesAreSplit) {
    TestServer server;
    RawClient client = enter(server, false, false, false, "endless");
    const std::uint32_t most = 0xfffffe00;
    EXPECT_EQ(client.call(Command::kTrim, 512, most)->error, NbdError::kNone);
    EXPECT_EQ(client.call(Command::kWriteZeroes, 512, most)->error, NbdError::kNone);
    EXPECT_EQ(client.call(Command::kCache, 0, most)->error, NbdError::kNone);
}

TEST(NbdTransmission, BlockStatusTellsHolesFromData) {
    TestServer server;
    RawClient client = enter(server, true, true);
    EXPECT_EQ(client.write(65536, pattern(65536, 1)), NbdError::kNone);
    const auto reply = client.call(Command::kBlockStatus, 0, 262144);
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->chunk, Chunk::kBlockStatus);
    EXPECT_EQ(reply->data, be32(65536) + be32(kStateHole | kStateZero) + be32(65536) + be32(0) +
                               be32(131072) + be32(kStateHole | kStateZero));
    EXPECT_EQ(client.call(Command::kBlockStatus, 0, 262144, {}, kReqOne)->data,
              be32(65536) + be32(kStateHole | kStateZero));
    EXPECT_EQ(client.call(Command::kBlockStatus, 65537, 7)->data, be32(7) + be32(0))
        << "unaligned queries are clipped";
    EXPECT_EQ(client.call(Command::kBlockStatus, 0, 0)->error, NbdError::kInvalid);
    EXPECT_EQ(enter(server, true, false).call(Command::kBlockStatus, 0, 512)->error,
              NbdError::kInvalid)
        << "without a context there is nothing to tell";
}

TEST(NbdTransmission, Hostile12BlockStatusOfTheLargestRangeStaysWithinIt) {
    TestServer server;
    RawClient client = enter(server, true, true, false, "endless");
    for (const std::uint32_t length : {0xffffffffU, 0xfffffffeU, 0xfffffe00U, 0x80000001U, 1U}) {
        const auto reply = client.call(Command::kBlockStatus, 0, length);
        ASSERT_TRUE(reply);
        EXPECT_EQ(reply->data, be32(length) + be32(kStateHole | kStateZero));
    }
}

TEST(NbdTransmission, Hostile13OffsetsAndLengthsThatWrapAreRefused) {
    TestServer server;
    const std::uint64_t size = 64 * kMiB;
    RawClient client = enter(server, true, true);
    for (const std::uint64_t offset :
         std::vector<std::uint64_t>{size, size - 256, ~0UL, ~0UL - 511, 1UL << 63, ~0UL - 255}) {
        EXPECT_EQ(client.call(Command::kRead, offset, 512)->error, NbdError::kInvalid) << offset;
        EXPECT_EQ(client.write(offset, pattern(512, 1)), NbdError::kNoSpace) << offset;
        EXPECT_EQ(client.call(Command::kWriteZeroes, offset, 0xffffffff)->error, NbdError::kNoSpace)
            << offset;
        EXPECT_EQ(client.call(Command::kTrim, offset, 0xffffffff)->error, NbdError::kInvalid)
            << offset;
        EXPECT_EQ(client.call(Command::kCache, offset, 0xffffffff)->error, NbdError::kInvalid)
            << offset;
        EXPECT_EQ(client.call(Command::kBlockStatus, offset, 0xffffffff)->error, NbdError::kInvalid)
            << offset;
    }
    EXPECT_TRUE(client.read(size - 512, 512).has_value());
    EXPECT_EQ(client.write(size - 512, pattern(512, 1)), NbdError::kNone);
}

TEST(NbdTransmission, HostileUnknownCommandsAndFlagsAreInvalidAndTheStreamGoesOn) {
    TestServer server;
    for (const bool structured : {false, true}) {
        RawClient client = enter(server, structured);
        for (const unsigned command : {8U, 9U, 100U, 0xffffU})
            EXPECT_EQ(client.call(Command(command), 0, 512)->error, NbdError::kInvalid);
        const std::map<Command, unsigned> allowed = {
            {Command::kRead, structured ? kFua | kDontFragment : kFua},
            {Command::kWrite, kFua},
            {Command::kFlush, kFua},
            {Command::kTrim, kFua},
            {Command::kCache, kFua},
            {Command::kWriteZeroes, kFua | kNoHole | kFastZero},
        };
        for (const auto& [command, flags] : allowed) {
            for (unsigned bit = 0; bit < 16; ++bit) {
                const unsigned flag = 1U << bit;
                const std::uint32_t length = command == Command::kFlush ? 0 : 512;
                const Bytes payload = command == Command::kWrite ? pattern(512, 1) : Bytes{};
                const auto reply = client.call(command, 0, length, payload, flag);
                ASSERT_TRUE(reply);
                EXPECT_EQ(reply->error, (flags & flag) != 0 ? NbdError::kNone : NbdError::kInvalid)
                    << "command " << static_cast<unsigned>(command) << " flag " << bit;
            }
        }
    }
}

TEST(NbdTransmission, HostileRequestsOverTheLargestPayloadAreRefusedAndDrained) {
    TestServer server;
    RawClient client = enter(server, true, false, false, "endless");
    EXPECT_EQ(client.call(Command::kRead, 0, 32 * 1024 * 1024 + 1)->error, NbdError::kInvalid);
    EXPECT_EQ(client.call(Command::kRead, 0, 0xffffffff)->error, NbdError::kInvalid);
    const Bytes large(32 * kMiB + 512);
    EXPECT_EQ(client.write(0, large), NbdError::kInvalid);
    EXPECT_EQ(client.write(0, pattern(512, 1)), NbdError::kNone)
        << "the stream goes on behind the payload";
}

TEST(NbdTransmission, HostileAWrongRequestMagicEndsTheConnection) {
    TestServer server;
    RawClient client = enter(server);
    ASSERT_TRUE(client.send(Bytes(kRequestBytes)));
    EXPECT_TRUE(client.is_closed());
}

TEST(NbdTransmission, HostileDuplicateCookiesAreTheClientsBusiness) {
    TestServer server;
    RawClient client = enter(server);
    Bytes requests;
    for (unsigned i = 0; i < 8; ++i)
        requests = std::move(requests) + request(Command::kCache, 42, 0, 512);
    ASSERT_TRUE(client.send(requests));
    for (unsigned i = 0; i < 8; ++i) {
        const auto reply = client.reply();
        ASSERT_TRUE(reply);
        EXPECT_EQ(reply->cookie, 42U);
    }
}

TEST(NbdTransmission, RequestsOfNothingSucceed) {
    TestServer server;
    for (const bool structured : {false, true}) {
        RawClient client = enter(server, structured);
        for (const Command command : {Command::kRead, Command::kWrite, Command::kTrim,
                                      Command::kWriteZeroes, Command::kCache})
            EXPECT_EQ(client.call(command, 512, 0)->error, NbdError::kNone);
    }
    EXPECT_EQ(server.disk().most_in_flight, 0U);
}

TEST(NbdTransmission, AReadOnlyExportTakesNoChanges) {
    TestServerOptions options;
    options.geometry.read_only = true;
    TestServer server(options);
    RawClient client = enter(server, true);
    EXPECT_EQ(client.write(0, pattern(512, 1)), NbdError::kPermission);
    EXPECT_EQ(client.call(Command::kTrim, 0, 512)->error, NbdError::kPermission);
    EXPECT_EQ(client.call(Command::kWriteZeroes, 0, 512)->error, NbdError::kPermission);
    EXPECT_EQ(client.call(Command::kFlush, 0, 0)->error, NbdError::kNone);
    EXPECT_TRUE(client.read(0, 512).has_value());
}

TEST(NbdTransmission, DeviceErrorsBecomeNbdErrorsAndTheConnectionGoesOn) {
    TestServer server;
    const std::vector<std::pair<Errc, NbdError>> cases = {{Errc::kIo, NbdError::kIo},
                                                          {Errc::kCorrupt, NbdError::kIo},
                                                          {Errc::kNoSpace, NbdError::kNoSpace},
                                                          {Errc::kTimedOut, NbdError::kIo},
                                                          {Errc::kClosed, NbdError::kShutdown},
                                                          {Errc::kCancelled, NbdError::kShutdown},
                                                          {Errc::kBusy, NbdError::kIo},
                                                          {Errc::kStale, NbdError::kIo},
                                                          {Errc::kReadOnly, NbdError::kPermission},
                                                          {Errc::kExhausted, NbdError::kNoMemory}};
    for (const bool structured : {false, true}) {
        RawClient client = enter(server, structured, structured);
        for (const auto& [code, expected] : cases) {
            server.disk().fail_with = static_cast<int>(code);
            EXPECT_EQ(client.call(Command::kRead, 0, 512)->error, expected) << to_string(code);
            EXPECT_EQ(client.write(0, pattern(512, 1)), expected);
            EXPECT_EQ(client.call(Command::kFlush, 0, 0)->error, expected);
            EXPECT_EQ(client.call(Command::kTrim, 0, 512)->error, expected);
            EXPECT_EQ(client.call(Command::kWriteZeroes, 0, 512)->error, expected);
            if (structured) {
                EXPECT_EQ(client.call(Command::kBlockStatus, 0, 512)->error, expected);
            }
        }
        server.disk().fail_with = SwitchedDevice::kNoError;
        EXPECT_TRUE(client.read(0, 512).has_value());
    }
}

TEST(NbdTransmission, SlowRequestsAreOvertakenByFastOnes) {
    TestServer server;
    RawClient client = enter(server);
    server.disk().hold = true;
    ASSERT_TRUE(client.send(request(Command::kRead, 1, 0, 512)));
    while (server.disk().in_flight < 1) std::this_thread::sleep_for(1ms);
    ASSERT_TRUE(client.send(request(Command::kCache, 2, 0, 512)));
    EXPECT_EQ(client.reply()->cookie, 2U);
    server.disk().hold = false;
    EXPECT_EQ(client.reply(512)->cookie, 1U);
}

// ---- large requests

TEST(NbdTransmission, RequestsOfUpTo32MiBAreServedInParts) {
    TestServer server;
    const Bytes all = pattern(32 * kMiB, 4);
    for (const bool structured : {false, true}) {
        RawClient client = enter(server, structured);
        EXPECT_EQ(client.call(Command::kWriteZeroes, 0, 64 * kMiB)->error, NbdError::kNone);
        server.disk().writes = 0;
        EXPECT_EQ(client.write(16 * kMiB, all, kFua), NbdError::kNone);
        EXPECT_EQ(server.disk().writes, 64U);
        EXPECT_EQ(client.call(Command::kRead, 16 * kMiB, 32 * kMiB)->data, all);
        const unsigned flags = structured ? unsigned{kDontFragment} : 0U;
        EXPECT_EQ(
            client.call(Command::kRead, 16 * kMiB + 3, 2 * kMiB + 5, {}, flags)->data,
            Bytes(all.begin() + 3, all.begin() + 3 + static_cast<std::ptrdiff_t>(2 * kMiB + 5)));
    }
}

TEST(NbdTransmission, APartThatFailsFailsTheWholeRequest) {
    TestServer server;
    RawClient client = enter(server);
    server.disk().fail_with = static_cast<int>(Errc::kIo);
    server.disk().fail_from_offset = 3 * kMiB;
    EXPECT_EQ(client.write(0, Bytes(4 * kMiB)), NbdError::kIo);
    EXPECT_EQ(client.write(0, Bytes(2 * kMiB)), NbdError::kNone);
    EXPECT_EQ(client.call(Command::kRead, 0, 4 * kMiB)->error, NbdError::kIo);
    EXPECT_TRUE(client.read(0, 2 * kMiB).has_value());
}

TEST(NbdTransmission, AWriteThatEndsAmidItsPayloadIsNotAcknowledged) {
    TestServer server;
    RawClient client = enter(server);
    ASSERT_TRUE(client.send(request(Command::kWrite, 1, 0, 4 * kMiB) + Bytes(3 * kMiB)));
    ASSERT_EQ(shutdown(client.fd(), SHUT_WR), 0);
    const auto reply = client.reply();
    if (reply) {
        EXPECT_NE(reply->error, NbdError::kNone);
    }
    EXPECT_TRUE(server.wait_for_connections(0));
}

TEST(NbdTransmission, PiecesOfAnyLengthGiveTheSameResult) {
    TestServer server;
    RawClient client = enter(server);
    Bytes stream;
    const Bytes data = pattern(70000, 6);
    stream = request(Command::kWrite, 1, 4096, 70000) + data + request(Command::kFlush, 2, 0, 0) +
             request(Command::kRead, 3, 4096, 512);
    std::size_t at = 0;
    for (std::size_t piece = 1; at < stream.size(); piece = piece * 2 > 20000 ? 1 : piece * 2) {
        const std::size_t end = std::min(stream.size(), at + piece);
        ASSERT_TRUE(client.send(Bytes(stream.begin() + static_cast<std::ptrdiff_t>(at),
                                      stream.begin() + static_cast<std::ptrdiff_t>(end))));
        at = end;
        std::this_thread::sleep_for(1ms);
    }
    std::map<std::uint64_t, NbdError> replies;
    for (int i = 0; i < 3; ++i) {
        // The read's cookie decides whether data follows, whatever came first.
        const auto head = client.receive(16);
        ASSERT_TRUE(head);
        const auto cookie = load_be<std::uint64_t>(head->data() + 8);
        replies[cookie] = NbdError(load_be<std::uint32_t>(head->data() + 4));
        if (cookie == 3) {
            ASSERT_TRUE(client.receive(512));
        }
    }
    EXPECT_EQ(replies, (std::map<std::uint64_t, NbdError>{
                           {1, NbdError::kNone}, {2, NbdError::kNone}, {3, NbdError::kNone}}));
    EXPECT_EQ(client.read(4096, 70000), data);
}

// ---- bounds

TEST(NbdTransmission, RequestsInFlightAreBounded) {
    TestServerOptions options;
    options.server.max_requests_in_flight = 8;
    TestServer server(options);
    RawClient client = enter(server);
    server.disk().hold = true;
    Bytes requests;
    for (std::uint64_t i = 0; i < 40; ++i)
        requests = std::move(requests) + request(Command::kRead, i, i * 512, 512);
    ASSERT_TRUE(client.send(requests));
    std::this_thread::sleep_for(100ms);
    EXPECT_EQ(server.disk().in_flight, 8U);
    server.disk().hold = false;
    for (int i = 0; i < 40; ++i) ASSERT_TRUE(client.reply(512));
    EXPECT_LE(server.disk().most_in_flight, 8U);
}

TEST(NbdTransmission, BytesInFlightAreBoundedAndALargerRequestStillFits) {
    TestServerOptions options;
    options.server.max_bytes_in_flight = 2 * kMiB;
    TestServer server(options);
    RawClient client = enter(server);
    server.disk().hold = true;
    Bytes requests;
    for (std::uint64_t i = 0; i < 16; ++i)
        requests = std::move(requests) + request(Command::kRead, i, 0, 512 * 1024);
    ASSERT_TRUE(client.send(requests));
    std::this_thread::sleep_for(100ms);
    EXPECT_EQ(server.disk().in_flight, 4U);
    server.disk().hold = false;
    for (int i = 0; i < 16; ++i) ASSERT_TRUE(client.reply(512 * 1024));
    EXPECT_TRUE(client.read(0, 8 * kMiB).has_value());
    EXPECT_EQ(client.write(0, Bytes(8 * kMiB)), NbdError::kNone);
}

TEST(NbdTransmission, AClientThatTakesNoRepliesLeavesMostBuffersToOthers) {
    TestServerOptions options;
    options.server.drain_timeout = 200ms;
    TestServer server(options);
    RawClient greedy = enter(server);
    Bytes requests;
    for (std::uint64_t i = 0; i < 64; ++i)
        requests = std::move(requests) + request(Command::kRead, i, 0, 512 * 1024);
    ASSERT_TRUE(greedy.send(requests));
    std::this_thread::sleep_for(100ms);
    EXPECT_GE(server.free_buffer_bytes(), 16 * kMiB * 2 / 3 - 512 * kKiB)
        << "its share of the pool";
    RawClient other = enter(server);
    EXPECT_TRUE(other.read(0, 512 * 1024).has_value()) << "others are served meanwhile";
    for (int i = 0; i < 64; ++i)
        ASSERT_TRUE(greedy.reply(512 * 1024)) << "and nothing is lost for the slow one";
}

TEST(NbdTransmission, ALargeWriteToADeviceThatHangsLeavesMostBuffersToOthers) {
    TestServer server;
    RawClient stuck = enter(server);
    RawClient other = enter(server, false, false, false, "endless");
    server.disk().hold = true;
    std::thread writer([&stuck] { EXPECT_EQ(stuck.write(0, Bytes(32 * kMiB)), NbdError::kNone); });
    while (server.disk().in_flight < 2) std::this_thread::sleep_for(1ms);
    std::this_thread::sleep_for(50ms);
    EXPECT_GE(server.free_buffer_bytes(), 16 * kMiB * 2 / 3 - 512 * kKiB);
    EXPECT_TRUE(other.read(0, 512 * 1024).has_value());
    server.disk().hold = false;
    writer.join();
}

TEST(NbdTransmission, MoreRequestsThanThereAreBuffersWaitForTheirTurn) {
    TestServerOptions options;
    options.buffer_bytes = kMiB;
    TestServer server(options);
    RawClient client = enter(server);
    server.disk().yields = 2;
    Bytes requests;
    const Bytes data = pattern(256 * 1024, 1);
    for (std::uint64_t i = 0; i < 12; ++i)
        requests =
            std::move(requests) + request(Command::kWrite, i, i * data.size(), 256 * 1024) + data;
    ASSERT_TRUE(client.send(requests));
    for (int i = 0; i < 12; ++i) EXPECT_EQ(client.reply()->error, NbdError::kNone);
    EXPECT_EQ(client.read(11 * data.size(), 256 * 1024), data);
    // Of the largest single size, but beginning within a block: two parts, each as large as all
    // that may be in flight.
    EXPECT_EQ(client.write(100, Bytes(512 * 1024)), NbdError::kNone);
    EXPECT_EQ(client.write(0, Bytes(3 * kMiB)), NbdError::kNone);
}

// ---- clients that did not ask for block sizes

TEST(NbdTransmission, UnalignedRequestsAreRefusedFromAClientThatKnowsTheBlockSize) {
    TestServer server;
    RawClient client = enter(server, true, true, true);
    EXPECT_EQ(client.write(1, pattern(512, 1)), NbdError::kInvalid);
    EXPECT_EQ(client.call(Command::kRead, 0, 513)->error, NbdError::kInvalid);
    EXPECT_EQ(client.call(Command::kTrim, 0, 100)->error, NbdError::kInvalid);
    EXPECT_EQ(client.call(Command::kWriteZeroes, 3, 512)->error, NbdError::kInvalid);
    EXPECT_EQ(client.call(Command::kBlockStatus, 3, 512)->error, NbdError::kInvalid);
    EXPECT_EQ(client.write(512, pattern(512, 1)), NbdError::kNone);
}

/// Random unaligned requests against a model in memory.
TEST(NbdTransmission, UnalignedRequestsOfOtherClientsAreServedByReadModifyWrite) {
    SCOPED_TRACE(suites::seed_text());
    suites::Random random;
    for (const std::uint32_t logical : {512U, 4096U}) {
        TestServerOptions options;
        options.geometry.logical_block_bytes = logical;
        TestServer server(options);
        RawClient client = enter(server, true);
        const std::uint64_t window = 2 * kMiB;
        Bytes model(window);
        for (unsigned step = 0; step < 400; ++step) {
            const std::uint64_t most = random.one_in(10) ? kMiB : random.one_in(2) ? 5000 : 300;
            const std::uint64_t length = random.between(1, most);
            const std::uint64_t offset = random.between(0, window - length);
            const auto begin = model.begin() + static_cast<std::ptrdiff_t>(offset);
            const auto end = begin + static_cast<std::ptrdiff_t>(length);
            const auto length32 = static_cast<std::uint32_t>(length);
            switch (random.between(0, 3)) {
                case 0: {
                    const Bytes data = pattern(length, step);
                    ASSERT_EQ(client.write(offset, data), NbdError::kNone);
                    std::ranges::copy(data, begin);
                    break;
                }
                case 1:
                    ASSERT_EQ(client.call(Command::kWriteZeroes, offset, length32)->error,
                              NbdError::kNone);
                    std::fill(begin, end, std::byte{0});
                    break;
                case 2: {  // zeroes the whole blocks within, and leaves the rest
                    ASSERT_EQ(client.call(Command::kTrim, offset, length32)->error,
                              NbdError::kNone);
                    const std::uint64_t first = align_up(offset, logical);
                    const std::uint64_t last = align_down(offset + length, logical);
                    if (first < last)
                        std::fill(model.begin() + static_cast<std::ptrdiff_t>(first),
                                  model.begin() + static_cast<std::ptrdiff_t>(last), std::byte{0});
                    break;
                }
                default:
                    ASSERT_EQ(client.read(offset, length32), Bytes(begin, end)) << "step " << step;
            }
        }
        ASSERT_EQ(client.read(0, static_cast<std::uint32_t>(window)), model);
    }
}

/// Sixteen bytes of one block, each written by a request of its own, all in flight together. Gives
/// the bytes that hold.
unsigned bytes_kept_of_one_block(TestServer& server) {
    RawClient one = enter(server);
    RawClient two = enter(server);
    server.disk().yields = 3;
    const Bytes whole(512, std::byte{0x11});
    EXPECT_EQ(one.write(0, whole), NbdError::kNone);
    Bytes first;
    Bytes second;
    for (std::uint64_t i = 0; i < 16; ++i)
        (i % 2 == 0 ? first : second) = std::move(i % 2 == 0 ? first : second) +
                                        request(Command::kWrite, i, i, 1) + Bytes{std::byte{0x77}};
    EXPECT_TRUE(one.send(first));
    EXPECT_TRUE(two.send(second));
    for (int i = 0; i < 8; ++i) {
        EXPECT_EQ(one.reply()->error, NbdError::kNone);
        EXPECT_EQ(two.reply()->error, NbdError::kNone);
    }
    const auto block = one.read(0, 512);
    unsigned kept = 0;
    for (std::size_t i = 0; i < 512; ++i)
        kept += (*block)[i] == std::byte(i < 16 ? 0x77 : 0x11) ? 1U : 0U;
    return kept;
}

TEST(NbdTransmission, WritesOfPartsOfOneBlockDoNotLoseEachOther) {
    TestServer server;
    EXPECT_EQ(bytes_kept_of_one_block(server), 512U);
    // The same with the rule off: the writes do lose each other, so the test can see it.
    ASSERT_TRUE(faults::arm("rule.nbd_change_order=off"));
    EXPECT_LT(bytes_kept_of_one_block(server), 512U);
    faults::disarm_all();
}

/// `two` writes a whole block and has its answer, while `one` writes a byte of it: in how many of
/// 20 rounds does the block then hold, beside that byte, what it held before?
unsigned rounds_undone(TestServer& server) {
    RawClient one = enter(server);
    RawClient two = enter(server);
    server.disk().delay_ms = 2;
    unsigned undone = 0;
    for (unsigned round = 1; round <= 20; ++round) {
        Bytes expected(512, std::byte(round));
        EXPECT_TRUE(one.send(request(Command::kWrite, round, 100, 1) + Bytes{std::byte{0xee}}));
        EXPECT_EQ(two.write(0, expected), NbdError::kNone);
        EXPECT_EQ(one.reply()->error, NbdError::kNone);
        const auto block = two.read(0, 512);
        expected[100] = (*block)[100];  // either may have come first
        undone += *block == expected ? 0U : 1U;
    }
    return undone;
}

TEST(NbdTransmission, AWholeBlockWriteIsNotUndoneByAReadModifyWriteBesideIt) {
    TestServer server;
    EXPECT_EQ(rounds_undone(server), 0U);
    ASSERT_TRUE(faults::arm("rule.nbd_change_order=off"));
    EXPECT_GT(rounds_undone(server), 0U) << "with the rule off it is";
    faults::disarm_all();
}

}  // namespace
}  // namespace ublkd::front::nbd::test
