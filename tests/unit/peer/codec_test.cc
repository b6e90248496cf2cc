// Goal: what one side encodes the other one decodes, field by field, however the bytes are cut; and
// the bytes are those of docs/peer-protocol.md. Method: messages of all types drawn at random go
// through both; the golden bytes were made by a script of its own that follows the page.
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "tests/suites/seed.h"
#include "tests/unit/peer/messages.h"
#include "ublkd/peer/decoder.h"
#include "ublkd/peer/encode.h"

namespace ublkd::peer {
namespace {

using namespace test;
using replication::IdList;
using replication::Message;
using replication::MessageType;
using replication::OpKind;
using replication::RegionSet;

/// What of `message` is to come out at the other side.
std::map<std::string, std::string> sent_fields(Message message) {
    message.route = 0;
    message.data = payload_of(message);
    message.into = {};
    return fields_of(message);
}

/// `function(message)`: each type and kind, failed and not, many times.
template <class Function>
void for_each_drawn(unsigned rounds, Function function) {
    std::mt19937_64 random(suites::test_seed());
    for (unsigned round = 0; round < rounds; ++round) {
        for (const TypeAndKind& one : all_types()) {
            for (const bool failed : {false, true}) {
                const Drawn drawn = draw(random, one.type, one.kind, failed);
                function(drawn.message);
                if (::testing::Test::HasFailure()) return;
            }
        }
    }
}

TEST(PeerCodec, EachMessageComesOutWithEveryField) {
    SCOPED_TRACE(suites::seed_text());
    std::mt19937_64 random(suites::test_seed() + 1);
    for_each_drawn(20, [&](const Message& message) {
        const Bytes frame = encoded(message);
        const std::size_t piece = random() % 3 == 0 ? 0 : 1 + random() % 5000;
        const Heard heard = hear(frame, piece);
        ASSERT_FALSE(heard.error) << to_string(*heard.error);
        ASSERT_EQ(heard.messages.size(), 1U);
        ASSERT_EQ(fields_of(heard.messages[0]), sent_fields(message));
        ASSERT_EQ(heard.again, frame);
    });
}

/// So that the test above tests each: a field that no drawn message sets would come out unseen.
TEST(PeerCodec, TheDrawnMessagesSetEveryField) {
    SCOPED_TRACE(suites::seed_text());
    const auto none = fields_of(Message{});
    std::set<std::string> unset{"into"};
    for (const auto& [name, text] : none) unset.insert(name);
    for_each_drawn(20, [&](const Message& message) {
        for (const auto& [name, text] : fields_of(message)) {
            if (text != none.at(name)) unset.erase(name);
        }
    });
    EXPECT_EQ(unset, std::set<std::string>{"into"}) << "memory of the asking side is not sent";
}

TEST(PeerCodec, FramesFollowEachOtherHoweverTheyAreCut) {
    SCOPED_TRACE(suites::seed_text());
    Bytes stream;
    std::vector<std::map<std::string, std::string>> sent;
    for_each_drawn(1, [&](const Message& message) {
        const Bytes frame = encoded(message);
        stream.insert(stream.end(), frame.begin(), frame.end());
        const auto alive = encode_alive(kNewestVersion);
        stream.insert(stream.end(), alive.begin(), alive.end());
        sent.push_back(sent_fields(message));
    });
    const auto last = encode(Refusal{.reason = Reason::kStopping});
    stream.insert(stream.end(), last.begin(), last.end());
    for (const std::size_t piece : {0UL, 7UL, 16UL, 191UL, 65536UL}) {
        const Heard heard = hear(stream, piece);
        ASSERT_FALSE(heard.error) << to_string(*heard.error);
        ASSERT_EQ(heard.messages.size(), sent.size());
        for (std::size_t i = 0; i < sent.size(); ++i)
            ASSERT_EQ(fields_of(heard.messages[i]), sent[i]);
        ASSERT_EQ(heard.frames.size(), 2 * sent.size() + 1);
        EXPECT_EQ(heard.frames.back(), Decoder::Step::kRefusal);
    }
}

/// Its data came by a copy, and the memory that the core still names may be given back already.
TEST(PeerCodec, DataOfAChangeThatIsOnlyNotedIsNotTouched) {
    Message message;
    message.type = MessageType::kReplicate;
    message.kind = OpKind::kWrite;
    message.mark_only = true;
    message.volume = kLimits.volume;
    message.from = ReplicaId(1);
    message.to = ReplicaId(2);
    message.range = {0, 4096};
    auto gone = std::make_unique<Bytes>(4096);
    message.data = *gone;
    gone.reset();
    const Bytes frame = encoded(message);
    EXPECT_EQ(frame.size(), kMessageBytes);
    EXPECT_EQ(hear(frame).messages.size(), 1U);
}

/// The core sets a list that names nothing there, and nobody reads it.
TEST(PeerCodec, IdsOfACopiedHoleAreNotSent) {
    Message message;
    message.type = MessageType::kCopy;
    message.kind = OpKind::kDiscard;
    message.volume = kLimits.volume;
    message.from = ReplicaId(1);
    message.to = ReplicaId(2);
    message.range = {0, 4096};
    message.ids = std::make_shared<const IdList>(IdList{{.applied = true}});
    const Heard heard = hear(encoded(message));
    ASSERT_EQ(heard.messages.size(), 1U);
    EXPECT_EQ(heard.messages[0].ids, nullptr);
}

TEST(PeerCodec, PayloadIsReceivedIntoTheMemoryThatIsGiven) {
    Bytes data(4096, std::byte{7});
    Message message;
    message.type = MessageType::kAnswer;
    message.volume = kLimits.volume;
    message.from = ReplicaId(1);
    message.data = data;
    const Bytes frame = encoded(message);
    Decoder decoder;
    std::size_t used = 0;
    ASSERT_EQ(*decoder.next(encode(hello_of(HostId(2))), used), Decoder::Step::kHello);
    decoder.begin_messages(kNewestVersion, kLimits);
    ASSERT_EQ(*decoder.next(std::span(frame).first(kMessageBytes + 100), used),
              Decoder::Step::kNeedBuffer);
    EXPECT_EQ(used, kMessageBytes);
    EXPECT_EQ(decoder.payload_bytes(), 4096U);
    EXPECT_TRUE(decoder.payload_room().empty());
    Bytes into(4096);
    decoder.give_buffer(into);
    ASSERT_EQ(*decoder.next(std::span(frame).subspan(kMessageBytes, 100), used),
              Decoder::Step::kNeedBytes);
    EXPECT_EQ(decoder.payload_room().data(), into.data() + 100);
    std::ranges::copy(std::span(frame).subspan(kMessageBytes + 100),
                      decoder.payload_room().begin());
    decoder.payload_received(3996);
    ASSERT_EQ(*decoder.next({}, used), Decoder::Step::kMessage);
    EXPECT_EQ(decoder.message().data.data(), into.data());
    EXPECT_EQ(into, data);
}

constexpr std::string_view kReplicateHead =
    "55424c5001000400f6255997000000005aee10ae000200000502000001000000"
    "00000000000000000000000000000000a1000000000000001100000000000000"
    "1200000000000000000000000000000000000000000000000700000000000000"
    "5100000000000000090000000000000033000000000000000000000000000000"
    "0400000000000000030000000000000000100000000000000002000000000000"
    "0000000000000000000000000000000000000000000000000000000000000000";
constexpr std::string_view kAdopted =
    "55424c50010004007fac65bcf827231500000000000000000a01480008010100"
    "02000000000000000900050000000000a1000000000000001200000000000000"
    "1100000000000000000000000000000000000000000000000700000000000000"
    "0000000000000000000000000000000034000000000000000000000000000000"
    "0000000000000000000000000000000000000000000000000000000000000000"
    "0000000000000000000000000000000000000000000000000000000000000000"
    "0101010000000000a10000000000000008000000000000000200000000000000"
    "1100000000000000110000000000000021000000000000003100000000000000"
    "4100000000000000000000000500000000000000040000000100000000000000";
constexpr std::string_view kFinish =
    "55424c5001000400f4f8fe46ac47eb3300000000000000001701480000000200"
    "00000000020000000000000000000000a1000000000000001100000000000000"
    "1200000000000000000000000000000000000000000000000800000000000000"
    "0000000000000000000000000000000000000000000000000000000000000000"
    "0000000000000000000000000000000000000000000000000000000000000000"
    "0000000000000000000000000000000000000000000000000000000000000000"
    "0101010000000000a10000000000000008000000000000000200000000000000"
    "1100000000000000110000000000000021000000000000003100000000000000"
    "4100000000000000510000000000000009000000000000000000000000000000"
    "0020000000000000001000000000000000020000000000000000000000000000"
    "5200000000000000010000000000000000020000000000000002000000000000"
    "000000000000000000000000000000000100000000000000";

TEST(PeerCodec, BytesOfAChangeAreThoseOfThePage) {
    Bytes data(512);
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i);
    Message message;
    message.type = MessageType::kReplicate;
    message.kind = OpKind::kWrite;
    message.fua = true;
    message.volume = kLimits.volume;
    message.from = ReplicaId(0x11);
    message.to = ReplicaId(0x12);
    message.number = 7;
    message.id = {0x51, 9};
    message.token = 0x33;
    message.through = 4;
    message.cleared = 3;
    message.range = {4096, 512};
    message.data = data;
    const Bytes frame = encoded(message);
    EXPECT_EQ(hex(std::span(frame).first(kMessageBytes)), kReplicateHead);
    EXPECT_EQ(hex(std::span(frame).subspan(kMessageBytes)), hex(data));
}

std::shared_ptr<const replication::Membership> small_record() {
    replication::Membership record;
    record.volume = kLimits.volume;
    record.number = 8;
    record.loss_count = 2;
    record.primary = ReplicaId(0x11);
    record.members = {{ReplicaId(0x11), HostId(0x21), PoolId(0x31)}};
    record.attachments = {AttachmentId(0x41)};
    return std::make_shared<const replication::Membership>(record);
}

TEST(PeerCodec, BytesOfARecordAndOfRegionsAreThoseOfThePage) {
    Message message;
    message.type = MessageType::kAdopted;
    message.in_sync = true;
    message.failed = true;
    message.error = Error{Errc::kStale, 5};
    message.volume = kLimits.volume;
    message.from = ReplicaId(0x12);
    message.to = ReplicaId(0x11);
    message.number = 7;
    message.token = 0x34;
    message.record = small_record();
    message.regions = std::make_shared<const RegionSet>(RegionSet{0, 2, 256});
    EXPECT_EQ(hex(encoded(message)), kAdopted);
}

TEST(PeerCodec, BytesOfIdsAreThoseOfThePage) {
    Message message;
    message.type = MessageType::kFinish;
    message.volume = kLimits.volume;
    message.from = ReplicaId(0x11);
    message.to = ReplicaId(0x12);
    message.number = 8;
    message.record = small_record();
    // The piece of an applied one is left over from before, and says nothing.
    message.ids = std::make_shared<const IdList>(
        IdList{{.id = {0x51, 9}, .applied = false, .change = {0, 8192}, .piece = {4096, 512}},
               {.id = {0x52, 1}, .applied = true, .change = {512, 512}, .piece = {512, 512}}});
    EXPECT_EQ(hex(encoded(message)), kFinish);
}

}  // namespace
}  // namespace ublkd::peer
