#include "tests/sim/wire.h"

#include <vector>

#include "tests/sim/world.h"
#include "ublkd/base/check.h"
#include "ublkd/peer/encode.h"

namespace ublkd::sim {
namespace {

using Step = peer::Decoder::Step;

constexpr peer::Limits kLimits{
    .volume = kVolume, .volume_bytes = kVolumeBytes, .region_bytes = kRegion};

}  // namespace

Wire::Wire(World* world) : world_(world) {
    std::size_t used = 0;
    const auto step = decoder_.next(encode(peer::Hello{.cluster = ClusterId(1),
                                                       .host = HostId(1),
                                                       .volume = kVolume,
                                                       .boot_id = {std::byte{1}}}),
                                    used);
    CHECK(step && *step == Step::kHello, "a hello");
    decoder_.begin_messages(peer::kNewestVersion, kLimits);
}

replication::Message Wire::through(const replication::Message& message) {
    std::vector<std::byte> head(peer::head_bytes(message));
    peer::encode_head(message, peer::kNewestVersion, kLimits, head);
    std::size_t used = 0;
    auto step = decoder_.next(head, used);
    if (step && *step == Step::kNeedBuffer) {
        decoder_.give_buffer(*world_->memory(decoder_.payload_bytes()));
        step = decoder_.next(peer::payload_of(message), used);
    }
    CHECK(step && *step == Step::kMessage, "a peer takes what the core sends");
    replication::Message received = decoder_.message();
    received.route = message.route;
    received.into = message.into;
    return received;
}

}  // namespace ublkd::sim
