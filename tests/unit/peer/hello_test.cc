// Goal: two hosts find out whether they can talk, and what they have in common; hellos and refusals
// look as docs/peer-protocol.md says, in every version.
#include "ublkd/peer/hello.h"

#include <gtest/gtest.h>

#include <functional>

#include "tests/unit/peer/messages.h"
#include "ublkd/peer/layout.h"

namespace ublkd::peer {
namespace {

using namespace test;

TEST(PeerHello, BytesAreThoseOfThePage) {
    EXPECT_EQ(hex(encode(hello_of(HostId(2)))),
              "55424c500100010099eb94080000000001000100000000000000000000000000"
              "0000000000000000c1000000000000000200000000000000a100000000000000"
              "b0b1b2b3b4b5b6b7b8b9babbbcbdbebf00000000000000000000000000000000"
              "0000000000000000000000000000000000000000000000000000000000000000");
    EXPECT_EQ(hex(encode(Refusal{.reason = Reason::kCluster})),
              "55424c500100020020b97efd0000000001000100030000000000000000000000"
              "0000000000000000000000000000000000000000000000000000000000000000");
    EXPECT_EQ(hex(encode_alive(1)), "55424c500100030068145cb500000000");
}

TEST(PeerHello, ComesOutAsItWasSent) {
    Hello hello = hello_of(HostId(7));
    hello.oldest_version = 3;
    hello.newest_version = 9;
    hello.features = 0x8000000000000005;
    hello.required = 4;
    Decoder decoder;
    std::size_t used = 0;
    const auto step = decoder.next(encode(hello), used);
    ASSERT_TRUE(step) << to_string(step.error());
    EXPECT_EQ(*step, Decoder::Step::kHello);
    EXPECT_EQ(decoder.hello(), hello);
}

TEST(PeerHello, NamesTheAttachmentWhoseClientAsks) {
    Hello hello = hello_of(HostId(1));
    hello.attachment = AttachmentId(0xa7);
    Decoder decoder;
    std::size_t used = 0;
    ASSERT_TRUE(decoder.next(encode(hello), used));
    EXPECT_EQ(decoder.hello(), hello);
}

TEST(PeerHello, ARefusalMayComeInPlaceOfAHello) {
    for (const Reason reason :
         {Reason::kVersion, Reason::kFeature, Reason::kCluster, Reason::kVolume, Reason::kHost,
          Reason::kBusy, Reason::kProtocol, Reason::kStopping}) {
        const Refusal refusal{.reason = reason, .oldest_version = 2, .newest_version = 5};
        Decoder decoder;
        std::size_t used = 0;
        const auto step = decoder.next(encode(refusal), used);
        ASSERT_TRUE(step) << to_string(step.error());
        EXPECT_EQ(*step, Decoder::Step::kRefusal);
        EXPECT_EQ(decoder.refusal(), refusal);
        EXPECT_STRNE(to_string(reason), "unknown");
    }
}

TEST(PeerHello, BothSidesAgreeOnTheNewestVersionAndTheCommonFeatures) {
    Hello own = hello_of(HostId(1));
    Hello other = hello_of(HostId(2));
    own.oldest_version = 2;
    own.newest_version = 6;
    own.features = 0b1110;
    other.oldest_version = 1;
    other.newest_version = 4;
    other.features = 0b0111;
    other.required = 0b0010;
    const Agreed agreed{.version = 4, .features = 0b0110};
    EXPECT_EQ(agree(own, other), agreed);
    EXPECT_EQ(agree(other, own), agreed);
}

TEST(PeerHello, BothSidesRefuseForTheSameReason) {
    const std::pair<Reason, std::function<void(Hello&, Hello&)>> cases[] = {
        {Reason::kVersion,
         [](Hello& a, Hello& b) {
             a.oldest_version = 2, a.newest_version = 3, b.newest_version = 1;
         }},
        {Reason::kFeature, [](Hello& a, Hello&) { a.features = a.required = 1; }},
        {Reason::kCluster, [](Hello& a, Hello&) { a.cluster = ClusterId(9); }},
        {Reason::kVolume, [](Hello& a, Hello&) { a.volume = VolumeId(9); }},
    };
    for (const auto& [reason, change] : cases) {
        Hello own = hello_of(HostId(1));
        Hello other = hello_of(HostId(2));
        ASSERT_TRUE(agree(own, other));
        change(own, other);
        ASSERT_FALSE(agree(own, other));
        EXPECT_EQ(agree(own, other).error().reason, reason);
        ASSERT_FALSE(agree(other, own));
        EXPECT_EQ(agree(other, own).error().reason, reason);
    }
}

/// With the right checksum, so that only the field can be what is refused.
TEST(PeerHello, WhatNoHostSaysIsRefused) {
    const auto refused = [](Hello hello) {
        Decoder decoder;
        std::size_t used = 0;
        const auto step = decoder.next(encode(hello), used);
        return !step && step.error().code == Errc::kProtocol;
    };
    Hello hello = hello_of(HostId(1));
    EXPECT_FALSE(refused(hello));
    Hello wrong = hello;
    wrong.oldest_version = 0;
    EXPECT_TRUE(refused(wrong));
    wrong = hello;
    wrong.newest_version = 1, wrong.oldest_version = 2;
    EXPECT_TRUE(refused(wrong));
    wrong = hello;
    wrong.required = 1;
    EXPECT_TRUE(refused(wrong));
    wrong = hello;
    wrong.cluster = ClusterId();
    EXPECT_TRUE(refused(wrong));
    wrong = hello;
    wrong.host = HostId();
    EXPECT_TRUE(refused(wrong));
    wrong = hello;
    wrong.volume = VolumeId();
    EXPECT_TRUE(refused(wrong));
    wrong = hello;
    wrong.boot_id = {};
    EXPECT_TRUE(refused(wrong));
}

template <std::size_t bytes>
void expect_reserved_bytes_refused(std::array<std::byte, bytes> header,
                                   std::initializer_list<std::size_t> reserved) {
    for (const std::size_t at : reserved) {
        std::array<std::byte, bytes> wrong = header;
        wrong[at] = std::byte{1};
        repair_checksums(wrong);
        Decoder decoder;
        std::size_t used = 0;
        const auto step = decoder.next(wrong, used);
        ASSERT_FALSE(step) << "byte " << at;
        EXPECT_EQ(step.error().code, Errc::kProtocol) << "byte " << at;
    }
}

TEST(PeerHello, BytesThatShouldBeZeroAreRefusedOtherwise) {
    expect_reserved_bytes_refused(encode(hello_of(HostId(1))), {7, 12, 15, 20, 23, 88, 100, 127});
    expect_reserved_bytes_refused(encode(Refusal{.reason = Reason::kBusy}),
                                  {7, 12, 15, 21, 22, 40, 63});
    auto unknown = encode(Refusal{.reason = Reason::kBusy});
    unknown[layout::kReason] = std::byte{9};
    repair_checksums(unknown);
    EXPECT_FALSE(hear(unknown).frames.size());
    EXPECT_TRUE(hear(unknown).error);
}

}  // namespace
}  // namespace ublkd::peer
