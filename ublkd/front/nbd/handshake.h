// The handshake as a state machine without I/O: bytes in, bytes and questions out. Its driver
// (session.cc) moves the bytes and puts the questions to the ExportDirectory; the fuzzer and the
// state tests drive it without a socket.
//
//   next(input, used)  takes what it can use of `input` and says what to do:
//     kNeedBytes     call again with more input (the unused rest first)
//     kStartTls      output() is sent, then TLS begins; tls_started(), then more input, all of it
//                    through TLS
//     kAsk           answer question() by one of the answer_ calls, then call next() again
//     kTransmission  output() is sent, then requests follow; the rest of `input` belongs to them
//     kClose         output() is sent, then the connection ends; protocol_error() says why, where
//     it was the client's fault
//   output() is what is to be sent so far, at any time; the driver clears it.
//
// Every limit is checked here, before any arithmetic on a length that came from outside and before
// any allocation: an option of more than 64 KiB, more than 64 options or 1 MiB of them, and names
// of more than 4096 bytes are refused. Owner: one connection, on the server's reactor. See
// docs/nbd.md; the hostile cases are tests/unit/front_nbd.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ublkd/front/nbd/export_directory.h"
#include "ublkd/front/nbd/protocol.h"

namespace ublkd::front::nbd {

/// What client and server agreed on.
struct Negotiated {
    bool structured_replies = false;
    bool allocation_context = false;  // base:allocation was selected for this very export
    bool knows_block_sizes = false;  // asked for them, so unaligned requests are the client's fault
};

/// There is nothing in between: a client that may choose can be made to choose the clear.
enum class Tls { kOff, kRequired };

class Handshake {
  public:
    enum class Step { kNeedBytes, kStartTls, kAsk, kTransmission, kClose };
    enum class Question { kList, kDescribe, kOpen };

    static constexpr std::uint32_t kMaxOptionBytes = 64 * 1024;
    static constexpr unsigned kMaxOptions = 64;
    static constexpr std::size_t kMaxTotalBytes = 1024 * 1024;

    /// output() holds the greeting.
    explicit Handshake(Tls tls = Tls::kOff);

    Step next(std::span<const std::byte> input, std::size_t& used);
    std::vector<std::byte>& output() { return output_; }

    /// To kStartTls. What was said in the clear is forgotten: nobody knows who said it.
    void tls_started();
    Question question() const { return question_; }
    /// The export that kDescribe and kOpen ask for.
    const std::string& export_name() const { return name_; }
    void answer_list(std::span<const std::string> names);
    /// To kDescribe; for kOpen with the info of the export that was opened.
    void answer(const Result<ExportInfo>& info);

    const Negotiated& negotiated() const { return negotiated_; }
    /// nullptr, or a literal: what the client did wrong.
    const char* protocol_error() const { return protocol_error_; }

  private:
    enum class State { kClientFlags, kOptions, kStartingTls, kAsking, kTransmission, kClosed };

    Step step_flags(std::span<const std::byte> input, std::size_t& used);
    Step step_option(std::span<const std::byte> input, std::size_t& used);
    Step take_option(std::uint32_t option, std::span<const std::byte> data, bool more_follows);
    Step take_start_tls(std::span<const std::byte> data, bool more_follows);
    Step refuse_in_the_clear();
    Step take_export_name(std::span<const std::byte> data);
    Step take_info_or_go(std::span<const std::byte> data);
    Step take_meta_context(std::span<const std::byte> data);
    Step ask(Question question, std::string_view name);
    Step close(const char* why);

    void answer_info(const ExportInfo& info);
    void answer_meta_context();
    void answer_export_name(const ExportInfo& info);
    void refuse(const Error& error);
    void reply(OptionReply type, std::span<const std::byte> data = {});
    void reply_text(OptionReply type, std::string_view text);
    void reply_context(std::uint32_t id);

    const Tls tls_;
    bool in_tls_ = false;
    State state_ = State::kClientFlags;
    std::vector<std::byte> output_;
    const char* protocol_error_ = nullptr;
    bool fixed_newstyle_ = false;
    bool no_zeroes_ = false;
    unsigned options_taken_ = 0;
    std::size_t bytes_taken_ = 0;

    // The option that is being answered.
    std::uint32_t option_ = 0;
    Question question_ = Question::kList;
    std::string name_;
    bool wants_name_ = false;
    bool wants_description_ = false;
    bool wants_block_size_ = false;
    bool selects_allocation_ = false;

    Negotiated negotiated_;
    std::string context_export_;  // the export that SET_META_CONTEXT named
};

/// The transmission flags of an export.
std::uint16_t transmission_flags(const block::Geometry& geometry, const Negotiated& negotiated);

}  // namespace ublkd::front::nbd
