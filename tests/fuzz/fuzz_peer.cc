// libFuzzer target: arbitrary bytes as another host's side of a connection of the peer protocol.
// The decoder is driven without a socket. The first byte chooses whether a hello has come before,
// and whether checksums are made right first (so that what is behind them is reached), the second
// how the bytes are cut. Checked beside the sanitizers: it takes no more than it was given; pieces
// give the same frames and the same error as all at once; and a frame that is taken is, encoded
// again, byte by byte what came, so that there is one form of each, which the sender's own rules
// allow.
#include <cstdint>
#include <optional>
#include <vector>

#include "tests/unit/peer/messages.h"
#include "ublkd/base/check.h"

namespace {

using namespace ublkd;
using namespace ublkd::peer;
using namespace ublkd::peer::test;

Heard hear_side(bool greeted, std::span<const std::byte> input, std::size_t piece) {
    if (greeted) return hear(input, piece);
    Decoder decoder;
    return hear(decoder, input, piece);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 2) return 0;
    const unsigned choice = data[0];
    const auto bytes = std::as_bytes(std::span<const std::uint8_t>(data + 2, size - 2));
    Bytes input(bytes.begin(), bytes.end());
    if ((choice & 1) != 0) repair_checksums(input);
    const bool greeted = (choice & 2) != 0;
    const Heard whole = hear_side(greeted, input, 0);
    CHECK(whole.again.size() <= input.size(), "frames were there");
    CHECK(std::equal(whole.again.begin(), whole.again.end(), input.begin()),
          "what is taken has one form");
    const Heard pieces = hear_side(greeted, input, 1U + data[1]);
    CHECK(pieces.frames == whole.frames && pieces.again == whole.again, "pieces give the same");
    CHECK(pieces.error == whole.error, "and end the same");
    return 0;
}
