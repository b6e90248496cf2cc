// One side's incoming frames, without I/O: bytes in, frames or one error out. Whatever the bytes
// are, each call ends with one of these:
//
//   next(input, used)  takes what it can use of `input` and says what to do:
//     kNeedBytes   call again with more input; all of this one was used
//     kNeedBuffer  message() is whole but for its payload, whose checksum is not known yet: give
//                  memory for payload_bytes() by give_buffer(), then call again with the rest
//     kHello, kRefusal, kAlive, kMessage
//                  it is whole, and valid until the next call; the rest of `input` comes after it
//   an error       the stream is over; each further call gives the same one
//
// While a payload comes, payload_room() is where its next bytes belong: they may be received into
// it directly (payload_received()) instead of by `input`. So it is never copied but for what came
// along with the header.
//
// First comes a hello (or a refusal); messages only after begin_messages(), which says in which
// version and within which limits. Memory: what has come of a frame's parts (at most
// Limits::parts_bytes()), and the sets made of them when they are whole and their checksum is
// right: no more than 22 bytes a byte received, and no region or id beyond the limits. Owner: one
// connection, on its reactor. See docs/peer-protocol.md; tests/fuzz feeds it with anything.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "ublkd/base/result.h"
#include "ublkd/peer/frame.h"
#include "ublkd/peer/hello.h"
#include "ublkd/replication/message.h"

namespace ublkd::peer {

class Decoder {
  public:
    enum class Step { kNeedBytes, kNeedBuffer, kHello, kRefusal, kAlive, kMessage };

    /// Errors: kProtocol (what no peer sends), kCorrupt (a checksum), kUnsupported (a version).
    Result<Step> next(std::span<const std::byte> input, std::size_t& used);

    /// After the hello, once.
    void begin_messages(std::uint16_t version, const Limits& limits);

    const Hello& hello() const { return hello_; }
    const Refusal& refusal() const { return refusal_; }
    /// `data` is set when it is whole; `into` and `route` never are.
    const replication::Message& message() const { return message_; }

    std::size_t payload_bytes() const { return payload_bytes_; }
    /// `buffer`: exactly payload_bytes(); stays valid until the message is whole, or no call comes
    /// any more.
    void give_buffer(std::span<std::byte> buffer);
    /// Empty where the next bytes are no payload.
    std::span<std::byte> payload_room() const;
    /// So many bytes were put into payload_room().
    void payload_received(std::size_t bytes);
    /// For the parts of a message.
    std::size_t kept_bytes() const { return parts_.capacity(); }

  private:
    enum class State { kHeader, kParts, kBuffer, kPayload, kFailed };

    Result<Step> step(std::span<const std::byte> input, std::size_t& used);
    Result<Step> begin_frame();
    Result<Step> end_header();
    Result<Step> begin_message();
    Result<Step> end_parts();
    Result<Step> end_payload();
    Result<Step> frame(Step step);
    Result<void> take_fields();
    Result<void> take_record(std::span<const std::byte> bytes);
    Result<void> take_regions(std::span<const std::byte> bytes);
    Result<void> take_ids(std::span<const std::byte> bytes);

    State state_ = State::kHeader;
    Error error_{Errc::kProtocol};
    bool greeted_ = false;
    std::optional<Limits> limits_;
    std::uint16_t version_ = 0;

    std::array<std::byte, kMessageBytes> header_{};  // of any kind: this is the longest
    std::size_t header_bytes_ = kPrefixBytes;        // that are needed so far
    std::size_t header_have_ = 0;
    FrameKind kind_{};

    std::vector<std::byte> parts_;
    std::size_t parts_bytes_ = 0;
    std::size_t record_bytes_ = 0;
    std::size_t region_words_ = 0;
    std::size_t ids_ = 0;
    std::size_t payload_bytes_ = 0;
    std::size_t payload_have_ = 0;
    std::span<std::byte> payload_;

    Hello hello_;
    Refusal refusal_;
    replication::Message message_;
};

}  // namespace ublkd::peer
