// The NBD protocol's numbers and fixed-size messages, and nothing else. All integers are
// big-endian. Source: NetworkBlockDevice/nbd doc/proto.md. See docs/nbd.md.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "ublkd/base/bytes.h"
#include "ublkd/base/result.h"
#include "ublkd/base/units.h"

namespace ublkd::front::nbd {

// ---- handshake
inline constexpr std::uint64_t kGreetingMagic = 0x4e42444d41474943;  // "NBDMAGIC"
inline constexpr std::uint64_t kOptionMagic = 0x49484156454f5054;    // "IHAVEOPT"
inline constexpr std::uint64_t kOptionReplyMagic = 0x0003e889045565a9;

inline constexpr std::uint16_t kFixedNewstyle = 1U << 0;  // handshake and client flags alike
inline constexpr std::uint16_t kNoZeroes = 1U << 1;

enum class Option : std::uint32_t {
    kExportName = 1,
    kAbort = 2,
    kList = 3,
    kStartTls = 5,
    kInfo = 6,
    kGo = 7,
    kStructuredReply = 8,
    kListMetaContext = 9,
    kSetMetaContext = 10,
};

enum class OptionReply : std::uint32_t {
    kAck = 1,
    kServer = 2,
    kInfo = 3,
    kMetaContext = 4,
    kErrUnsupported = 0x80000001,
    kErrPolicy = 0x80000002,
    kErrInvalid = 0x80000003,
    kErrTlsRequired = 0x80000005,
    kErrUnknown = 0x80000006,
    kErrShutdown = 0x80000007,
    kErrTooBig = 0x80000009,
};

enum class Info : std::uint16_t { kExport = 0, kName = 1, kDescription = 2, kBlockSize = 3 };

inline constexpr std::size_t kOptionHeaderBytes = 16;  // magic, option, length
inline constexpr std::size_t kMaxNameBytes = 4096;
inline constexpr std::uint32_t kMaxPayloadBytes = 32 * 1024 * 1024;  // of one READ or WRITE
inline constexpr std::uint32_t kPreferredBlockBytes = kPageBytes;

// ---- transmission
enum TransmissionFlag : std::uint16_t {
    kHasFlags = 1U << 0,
    kReadOnlyExport = 1U << 1,
    kSendFlush = 1U << 2,
    kSendFua = 1U << 3,
    kSendTrim = 1U << 5,
    kSendWriteZeroes = 1U << 6,
    kSendDf = 1U << 7,
    kCanMultiConn = 1U << 8,
    kSendCache = 1U << 10,
    kSendFastZero = 1U << 11,
};

enum class Command : std::uint16_t {
    kRead = 0,
    kWrite = 1,
    kDisconnect = 2,
    kFlush = 3,
    kTrim = 4,
    kCache = 5,
    kWriteZeroes = 6,
    kBlockStatus = 7,
};

enum CommandFlag : std::uint16_t {
    kFua = 1U << 0,
    kNoHole = 1U << 1,
    kDontFragment = 1U << 2,
    kReqOne = 1U << 3,
    kFastZero = 1U << 4,
};

enum class NbdError : std::uint32_t {
    kNone = 0,
    kPermission = 1,
    kIo = 5,
    kNoMemory = 12,
    kInvalid = 22,
    kNoSpace = 28,
    kOverflow = 75,
    kNotSupported = 95,
    kShutdown = 108,
};

/// What a client is told of `error`. Row by row in docs/nbd.md.
NbdError to_nbd_error(const Error& error) noexcept;

inline constexpr std::uint32_t kRequestMagic = 0x25609513;
inline constexpr std::uint32_t kSimpleReplyMagic = 0x67446698;
inline constexpr std::uint32_t kStructuredReplyMagic = 0x668e33ef;
inline constexpr std::size_t kRequestBytes = 28;
inline constexpr std::size_t kSimpleReplyBytes = 16;
inline constexpr std::size_t kChunkHeaderBytes = 20;

enum class Chunk : std::uint16_t {
    kNone = 0,
    kOffsetData = 1,
    kOffsetHole = 2,
    kBlockStatus = 5,
    kError = 0x8001
};
inline constexpr std::uint16_t kChunkDone = 1U << 0;

inline constexpr std::uint32_t kAllocationContextId = 1;
inline constexpr const char* kAllocationContext = "base:allocation";
inline constexpr std::uint32_t kStateHole = 1U << 0;
inline constexpr std::uint32_t kStateZero = 1U << 1;

/// One request as it came: nothing in it is checked but the magic.
struct WireRequest {
    std::uint16_t flags = 0;
    std::uint16_t command = 0;
    std::uint64_t cookie = 0;  // the client's, given back as it came
    std::uint64_t offset_bytes = 0;
    std::uint32_t length_bytes = 0;
};

/// False where the magic is wrong: the stream cannot be followed any more.
inline bool decode_request(const std::byte* from, WireRequest& request) noexcept {
    if (load_be<std::uint32_t>(from) != kRequestMagic) return false;
    request.flags = load_be<std::uint16_t>(from + 4);
    request.command = load_be<std::uint16_t>(from + 6);
    request.cookie = load_be<std::uint64_t>(from + 8);
    request.offset_bytes = load_be<std::uint64_t>(from + 16);
    request.length_bytes = load_be<std::uint32_t>(from + 24);
    return true;
}

inline void encode_simple_reply(std::byte* to, NbdError error, std::uint64_t cookie) noexcept {
    store_be(to, kSimpleReplyMagic);
    store_be(to + 4, static_cast<std::uint32_t>(error));
    store_be(to + 8, cookie);
}

/// `payload_bytes`: of the chunk, all that follows this header.
inline void encode_chunk_header(std::byte* to, std::uint16_t flags, Chunk type,
                                std::uint64_t cookie, std::uint32_t payload_bytes) noexcept {
    store_be(to, kStructuredReplyMagic);
    store_be(to + 4, flags);
    store_be(to + 6, static_cast<std::uint16_t>(type));
    store_be(to + 8, cookie);
    store_be(to + 16, payload_bytes);
}

}  // namespace ublkd::front::nbd
