// libFuzzer target: arbitrary bytes as a client's side of the handshake. The state machine is
// driven without a socket, cut into pieces that the input itself chooses. Checked beside the
// sanitizers: it takes no more than it was given, it ends or asks for more, its answers are
// well-formed, and pieces give the same answers as all at once.
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "ublkd/base/check.h"
#include "ublkd/front/nbd/handshake.h"

namespace {

using namespace ublkd;
using namespace ublkd::front::nbd;
using Bytes = std::vector<std::byte>;

Result<ExportInfo> look_up(const std::string& name) {
    CHECK(name.size() <= kMaxNameBytes, "no longer name reaches the directory");
    if (name == "disk" || name.empty())
        return ExportInfo{"disk", "a disk", block::Geometry{.size_bytes = kMiB}};
    if (name == "busy") return fail(Errc::kBusy, "in use");
    return fail(Errc::kNotFound, "export");
}

struct Outcome {
    Bytes sent;
    Handshake::Step last = Handshake::Step::kNeedBytes;
    std::size_t used = 0;
};

/// `piece`: how many bytes come at a time, 0: all at once.
Outcome converse(std::span<const std::byte> input, std::size_t piece, Tls tls = Tls::kOff) {
    Handshake handshake(tls);
    bool in_the_clear = tls == Tls::kRequired;
    Outcome outcome;
    std::size_t given = piece == 0 ? input.size() : 0;
    const std::vector<std::string> names{"disk", "busy", std::string(100, 'n')};
    for (;;) {
        std::size_t used = 0;
        outcome.last = handshake.next(input.subspan(outcome.used, given - outcome.used), used);
        CHECK(outcome.used + used <= given, "no more is taken than was given");
        outcome.used += used;
        if (outcome.last == Handshake::Step::kStartTls) {
            handshake.tls_started();
            in_the_clear = false;
        }
        if (outcome.last == Handshake::Step::kAsk) {
            CHECK(!in_the_clear, "nothing is told in the clear");
            if (handshake.question() == Handshake::Question::kList) {
                handshake.answer_list(names);
            } else {
                handshake.answer(look_up(handshake.export_name()));
            }
        }
        Bytes& output = handshake.output();
        outcome.sent.insert(outcome.sent.end(), output.begin(), output.end());
        output.clear();
        CHECK(outcome.sent.size() < 64U << 20, "answers are bounded");
        if (outcome.last == Handshake::Step::kTransmission ||
            outcome.last == Handshake::Step::kClose)
            return outcome;
        if (outcome.last == Handshake::Step::kNeedBytes) {
            if (given == input.size()) return outcome;
            given = std::min(input.size(), given + piece);
        }
    }
}

/// The greeting, then option replies whose lengths add up, then perhaps what EXPORT_NAME sends.
void check_well_formed(const Bytes& sent) {
    CHECK(sent.size() >= 18, "the greeting is sent");
    std::size_t at = 18;
    while (at < sent.size()) {
        const std::size_t left = sent.size() - at;
        if (left < 20 || load_be<std::uint64_t>(sent.data() + at) != kOptionReplyMagic) {
            CHECK(left == 10 || left == 134, "size and flags of EXPORT_NAME");
            return;
        }
        const std::size_t length = load_be<std::uint32_t>(sent.data() + at + 16);
        CHECK(20 + length <= left, "an answer is sent whole");
        at += 20 + length;
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const auto input = std::as_bytes(std::span<const std::uint8_t>(data + 1, size - 1));
    const Outcome whole = converse(input, 0);
    check_well_formed(whole.sent);
    const Outcome pieces = converse(input, 1U + data[0]);
    CHECK(pieces.sent == whole.sent && pieces.last == whole.last && pieces.used == whole.used,
          "pieces give the same answers");
    // (bytes behind STARTTLS end it, so that pieces matter here)
    check_well_formed(converse(input, 1U + data[0], Tls::kRequired).sent);
    return 0;
}
