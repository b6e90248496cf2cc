// Goal: whatever comes instead of a frame is refused, and never taken for another one. Method:
// every truncation and every flipped bit of frames of all kinds; and frames whose checksums are
// right with each field, in turn, as no peer sends it.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/unit/peer/messages.h"
#include "ublkd/base/bytes.h"
#include "ublkd/peer/decoder.h"
#include "ublkd/peer/encode.h"
#include "ublkd/peer/layout.h"

namespace ublkd::peer {
namespace {

using namespace test;
using replication::IdList;
using replication::Message;
using replication::MessageType;
using replication::OpKind;
using replication::RegionSet;

Message between_members(MessageType type, OpKind kind = {}) {
    Message message;
    message.type = type;
    message.kind = kind;
    message.volume = kLimits.volume;
    message.from = ReplicaId(1);
    message.to = ReplicaId(2);
    return message;
}

std::shared_ptr<const replication::Membership> record() {
    replication::Membership record;
    record.volume = kLimits.volume;
    record.number = 8;
    record.primary = ReplicaId(1);
    record.members = {{ReplicaId(1), HostId(3), PoolId(5)}, {ReplicaId(2), HostId(4), PoolId(6)}};
    record.attachments = {AttachmentId(7), AttachmentId(8)};
    return std::make_shared<const replication::Membership>(record);
}

/// One with all parts that a type has, so that each part's checks are met.
Message with_ids() {
    Message message = between_members(MessageType::kFinish);
    message.record = record();
    message.ids = std::make_shared<const IdList>(
        IdList{{.id = {5, 6}, .applied = false, .change = {4096, 8192}, .piece = {8192, 512}},
               {.id = {5, 7}, .applied = true, .change = {0, 512}}});
    return message;
}
Message with_regions() {
    Message message = between_members(MessageType::kClear);
    message.regions = std::make_shared<const RegionSet>(RegionSet{1, 63, 64, 256});
    return message;
}

struct Frames {
    std::string name;
    Bytes bytes;
};
/// Hello, refusal, alive, and messages without parts, with each part, and with a payload.
std::vector<Frames> frames() {
    std::vector<Frames> all;
    const auto add = [&](const char* name, auto header) {
        all.push_back({name, Bytes(header.begin(), header.end())});
    };
    add("hello", encode(hello_of(HostId(2))));
    add("refusal", encode(Refusal{.reason = Reason::kBusy}));
    add("alive", encode_alive(kNewestVersion));
    add("confirm", encoded(between_members(MessageType::kConfirm)));
    add("finish", encoded(with_ids()));
    add("clear", encoded(with_regions()));
    Bytes data(512, std::byte{9});
    Message write = between_members(MessageType::kReplicate, OpKind::kWrite);
    write.range = {512, 512};
    write.data = data;
    add("replicate", encoded(write));
    return all;
}

/// A hello's first, anything else after one.
Heard hear_frame(const Frames& frame, std::span<const std::byte> bytes) {
    if (frame.name != "hello") return hear(bytes);
    Decoder decoder;
    return hear(decoder, bytes, 0);
}

TEST(PeerRefused, EveryTruncationWaitsForMore) {
    for (const Frames& frame : frames()) {
        ASSERT_EQ(hear_frame(frame, frame.bytes).frames.size(), 1U) << frame.name;
        for (std::size_t bytes = 0; bytes < frame.bytes.size(); ++bytes) {
            const Heard heard = hear_frame(frame, std::span(frame.bytes).first(bytes));
            ASSERT_TRUE(heard.frames.empty()) << frame.name << " of " << bytes << " bytes";
            ASSERT_FALSE(heard.error) << frame.name << " of " << bytes << " bytes";
        }
    }
}

TEST(PeerRefused, EveryFlippedBitEndsTheStreamBeforeAFrame) {
    for (const Frames& frame : frames()) {
        for (std::size_t bit = 0; bit < frame.bytes.size() * 8; ++bit) {
            Bytes wrong = frame.bytes;
            wrong[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
            // More of the like follows, so that one which now says to be longer is not just
            // waiting.
            for (int i = 0; i < 16; ++i)
                wrong.insert(wrong.end(), frame.bytes.begin(), frame.bytes.end());
            const Heard heard = hear_frame(frame, wrong);
            ASSERT_TRUE(heard.frames.empty()) << frame.name << " bit " << bit;
            ASSERT_TRUE(heard.error) << frame.name << " bit " << bit;
        }
    }
}

TEST(PeerRefused, AfterAnErrorNothingIsTaken) {
    Decoder decoder;
    std::size_t used = 0;
    const Bytes garbage(1000, std::byte{0x55});
    const auto first = decoder.next(garbage, used);
    ASSERT_FALSE(first);
    EXPECT_EQ(used, kPrefixBytes);
    const auto second = decoder.next(encode(hello_of(HostId(2))), used);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error(), first.error());
    EXPECT_STREQ(second.error().where, first.error().where);
    EXPECT_EQ(used, 0U);
}

TEST(PeerRefused, MessagesBeforeTheHelloAndSecondHellosAre) {
    Decoder early;
    EXPECT_STREQ(hear(early, encoded(between_members(MessageType::kConfirm)), 0).error->where,
                 "frame: before the hello");
    Decoder alive;
    EXPECT_STREQ(hear(alive, encode_alive(kNewestVersion), 0).error->where,
                 "frame: before the hello");
    EXPECT_STREQ(hear(encode(hello_of(HostId(2)))).error->where, "frame: a second hello");
}

// ---- each field, as no peer sends it; the checksums are right

/// Changes `frame`; what is said of it.
struct Case {
    const char* error;
    std::function<void(Bytes&)> change;
};
template <class T>
std::function<void(Bytes&)> set(std::size_t at, T value) {
    return [at, value](Bytes& frame) { store_le<T>(frame.data() + at, value); };
}

void expect_refused(const Message& message, const std::vector<Case>& cases) {
    const Bytes frame = encoded(message);
    ASSERT_EQ(hear(frame).messages.size(), 1U);
    for (const Case& one : cases) {
        Bytes wrong = frame;
        one.change(wrong);
        repair_checksums(wrong);
        const Heard heard = hear(wrong);
        EXPECT_TRUE(heard.frames.empty()) << one.error;
        ASSERT_TRUE(heard.error) << one.error;
        EXPECT_STREQ(heard.error->where, one.error);
    }
}

constexpr std::size_t kParts = kMessageBytes;

TEST(PeerRefused, HeadersThatNoPeerSendsAre) {
    std::vector<Case> cases{
        {"frame: magic", set<std::uint32_t>(layout::kMagic, kMagic + 1)},
        {"frame: version", set<std::uint16_t>(layout::kVersion, kNewestVersion + 1)},
        {"frame: unknown kind", set<std::uint8_t>(layout::kKind, 0)},
        {"frame: unknown kind", set<std::uint8_t>(layout::kKind, 5)},
        {"frame: not zero where it should be", set<std::uint8_t>(layout::kKind + 1, 1)},
        {"message: unknown type", set<std::uint8_t>(layout::kType, 0)},
        {"message: unknown type", set<std::uint8_t>(layout::kType, 100)},
        {"message: unknown type", set<std::uint8_t>(layout::kType, 255)},
        {"message: unknown kind", set<std::uint8_t>(layout::kOpKind, 0)},
        {"message: unknown kind", set<std::uint8_t>(layout::kOpKind, 100)},
        {"message: unknown flag", set<std::uint32_t>(layout::kFlags, 1U << 9)},
        {"message: unknown flag", set<std::uint32_t>(layout::kFlags, 1U << 31)},
        {"message: an error without failure", set<std::uint16_t>(layout::kError, 4)},
        {"message: an error without failure", set<std::int16_t>(layout::kErrno, 5)},
        {"message: another volume", set<std::uint64_t>(layout::kMessageVolume, 0xa2)},
        {"message: sender", set<std::uint64_t>(layout::kFrom, 0)},
        {"message: receiver", set<std::uint64_t>(layout::kTo, 0)},
        {"message: half an id", set<std::uint64_t>(layout::kId, 1)},
        {"message: half an id", set<std::uint64_t>(layout::kId + 8, 1)},
        {"message: a kind that the type has not", set<std::uint8_t>(layout::kOpKind, 2)},
        {"message: a range where there is none", set<std::uint64_t>(layout::kRange, 512)},
        {"message: a range where there is none", set<std::uint64_t>(layout::kRange + 8, 512)},
    };
    for (std::size_t at = layout::kErrno + 2; at < layout::kMessageVolume; ++at)
        cases.push_back({"message: not zero where it should be", set<std::uint8_t>(at, 1)});
    for (std::size_t at = layout::kMessageEnd; at < kMessageBytes; ++at)
        cases.push_back({"message: not zero where it should be", set<std::uint8_t>(at, 0x80)});
    expect_refused(between_members(MessageType::kConfirm), cases);
}

TEST(PeerRefused, ErrorsThatAreNoneAre) {
    Message message = between_members(MessageType::kConfirmed);
    message.failed = true;
    message.error = Error{Errc::kStale};
    expect_refused(message, {{"message: unknown error", set<std::uint16_t>(layout::kError, 0)},
                             {"message: unknown error", set<std::uint16_t>(layout::kError, 200)},
                             {"message: unknown error", set<std::uint16_t>(layout::kError, 256)},
                             {"message: unknown error", set<std::int16_t>(layout::kErrno, -5)}});
}

/// From the header alone: nothing is kept for what they announce.
TEST(PeerRefused, LengthsBeyondTheirLimitsAre) {
    const char* const beyond = "message: a length beyond its limit";
    expect_refused(
        between_members(MessageType::kConfirm),
        {{beyond, set<std::uint16_t>(layout::kRecordBytes, replication::kMaxRecordBytes + 1)},
         {beyond, set<std::uint32_t>(layout::kRegionWords,
                                     static_cast<std::uint32_t>(kLimits.region_words()) + 1)},
         {beyond, set<std::uint32_t>(layout::kRegionWords, UINT32_MAX)},
         {beyond, set<std::uint32_t>(layout::kIds, kMaxIds + 1)},
         {beyond, set<std::uint32_t>(layout::kIds, UINT32_MAX)},
         {beyond, set<std::uint32_t>(layout::kPayloadBytes, kMaxIoBytes + 1)},
         {beyond, set<std::uint32_t>(layout::kPayloadBytes, UINT32_MAX)},
         {"message: parts that its flags have not", set<std::uint32_t>(layout::kRegionWords, 1)},
         {"message: parts that its flags have not", set<std::uint32_t>(layout::kIds, 1)}});
}

TEST(PeerRefused, RegionsThatAreNoneOfTheVolumeAre) {
    // Words 0, 1 and 4 of the volume's 5; the last one has one region.
    expect_refused(
        with_regions(),
        {{"message: regions", set<std::uint32_t>(kParts, 1)},
         {"message: regions", set<std::uint32_t>(kParts + kRegionWordBytes, 0)},
         {"message: regions", set<std::uint32_t>(kParts + kRegionWordBytes, 4)},
         {"message: regions", set<std::uint32_t>(kParts + 2 * kRegionWordBytes, 5)},
         {"message: regions", set<std::uint32_t>(kParts + 2 * kRegionWordBytes, UINT32_MAX)},
         {"message: regions", set<std::uint64_t>(kParts + 4, 0)},
         {"message: a region outside",
          set<std::uint64_t>(kParts + 2 * kRegionWordBytes + 4, std::uint64_t{1} << 1)}});
}

TEST(PeerRefused, RecordsThatCannotBeAre) {
    Message message = between_members(MessageType::kTakeOver);
    message.record = record();
    expect_refused(message,
                   {{"membership record: version", set<std::uint8_t>(kParts, 2)},
                    {"membership record: length", set<std::uint8_t>(kParts + 1, 1)},
                    {"membership record: contradicts itself", set<std::uint64_t>(kParts + 32, 9)},
                    {"membership record: contradicts itself", set<std::uint64_t>(kParts + 16, 0)},
                    {"message: another volume's record", set<std::uint64_t>(kParts + 8, 9)},
                    {"message: a record in another form", set<std::uint8_t>(kParts + 3, 2)},
                    {"message: a record in another form", set<std::uint32_t>(kParts + 4, 1)}});
}

TEST(PeerRefused, IdsThatAreNoneAre) {
    const std::size_t first = kParts + replication::encode(*record()).size();
    const std::size_t second = first + kNotedIdBytes;
    const char* const not_zero = "message: an id not zero where it should be";
    expect_refused(
        with_ids(),
        {{"message: an id that names nothing", set<std::uint64_t>(first, 0)},
         {"message: an id that names nothing", set<std::uint64_t>(first + 8, 0)},
         {"message: an id's range", set<std::uint64_t>(first + 16, 1)},
         {"message: an id's range", set<std::uint64_t>(first + 24, 0)},
         {"message: an id's range", set<std::uint64_t>(first + 24, kLimits.volume_bytes)},
         {"message: an id's range", set<std::uint64_t>(first + 16, UINT64_MAX - 511)},
         {"message: an id's piece", set<std::uint64_t>(first + 32, 8193)},
         {"message: an id's piece", set<std::uint64_t>(first + 32, 0)},
         {"message: an id's piece", set<std::uint64_t>(first + 32, 12288)},
         {"message: an id's piece", set<std::uint64_t>(first + 40, 0)},
         {"message: an id's piece", set<std::uint64_t>(first + 40, 8192)},
         {not_zero, set<std::uint8_t>(first + layout::kNotedApplied, 2)},
         {not_zero, set<std::uint8_t>(first + layout::kNotedApplied + 1, 1)},
         {not_zero, set<std::uint8_t>(first + kNotedIdBytes - 1, 1)},
         {not_zero, set<std::uint64_t>(second + layout::kNotedPiece, 512)}});
}

TEST(PeerRefused, RangesThatAreNoneOfTheVolumeAre) {
    Bytes data(4096);
    Message write = between_members(MessageType::kReplicate, OpKind::kWrite);
    write.range = {4096, 4096};
    write.data = data;
    expect_refused(
        write,
        {{"message: range", set<std::uint64_t>(layout::kRange, 1)},
         {"message: range", set<std::uint64_t>(layout::kRange + 8, 4095)},
         {"message: range", set<std::uint64_t>(layout::kRange, kLimits.volume_bytes)},
         {"message: range", set<std::uint64_t>(layout::kRange, UINT64_MAX - 511)},
         {"message: range", set<std::uint64_t>(layout::kRange + 8, UINT64_MAX - 511)},
         {"message: an empty range", set<std::uint64_t>(layout::kRange + 8, 0)},
         {"message: a range too long", set<std::uint64_t>(layout::kRange + 8, kMaxIoBytes + 512)},
         {"message: range and payload differ", set<std::uint64_t>(layout::kRange + 8, 8192)},
         {"message: range and payload differ", set<std::uint32_t>(layout::kPayloadBytes, 512)},
         {"message: payload where there is none", set<std::uint8_t>(layout::kOpKind, 3)},
         {"message: payload where there is none",
          set<std::uint32_t>(layout::kFlags, 1U << 2)}});  // mark_only
    Message fetch = between_members(MessageType::kFetch, OpKind::kRead);
    fetch.range = {0, kMaxIoBytes};
    expect_refused(
        fetch,
        {{"message: a range too long", set<std::uint64_t>(layout::kRange + 8, kMaxIoBytes + 512)},
         {"message: an empty range", set<std::uint64_t>(layout::kRange + 8, 0)},
         {"message: a kind that the type has not", set<std::uint8_t>(layout::kOpKind, 2)}});
    Message fetched = between_members(MessageType::kFetched, OpKind::kRead);
    fetched.data = data;
    expect_refused(
        fetched,
        {{"message: length of the payload", set<std::uint32_t>(layout::kPayloadBytes, 0)},
         {"message: length of the payload", set<std::uint32_t>(layout::kPayloadBytes, 100)}});
    Message zeroes = between_members(MessageType::kCopy, OpKind::kDiscard);
    zeroes.range = {0, 64 * kMiB};
    expect_refused(zeroes, {{"message: a checked copy without data",
                             set<std::uint32_t>(layout::kFlags, 1U << 7)}});
}

/// The core takes them for granted.
TEST(PeerRefused, MessagesWithoutThePartsThatTheirTypeHasAre) {
    const auto without = [](std::uint8_t type) { return set<std::uint8_t>(layout::kType, type); };
    Message plain = between_members(MessageType::kConfirm);
    expect_refused(plain, {{"message: record", without(9)},      // kAdopt
                           {"message: record", without(13)},     // kTakeOver
                           {"message: record", without(23)},     // kFinish
                           {"message: regions", without(20)},    // kClear
                           {"message: regions", without(22)}});  // kExamined
    Message with_record = between_members(MessageType::kTakeOver);
    with_record.record = record();
    expect_refused(with_record, {{"message: ids", without(23)},      // kFinish
                                 {"message: record", without(7)}});  // kConfirm
    expect_refused(with_regions(), {{"message: regions", without(7)}});
    expect_refused(with_ids(), {{"message: ids", without(13)}});
}

TEST(PeerRefused, IdsOfACopiedHoleAre) {
    Bytes data(512);
    Message copy = between_members(MessageType::kCopy, OpKind::kWrite);
    copy.range = {0, 512};
    copy.data = data;
    copy.ids = std::make_shared<const IdList>();
    expect_refused(copy, {{"message: ids", [](Bytes& frame) {
                               store_le<std::uint8_t>(frame.data() + layout::kOpKind, 3);
                               store_le<std::uint32_t>(frame.data() + layout::kPayloadBytes, 0);
                               frame.resize(kMessageBytes);
                           }}});
}

TEST(PeerRefused, IdsOfAnotherChangeThanTheOneThatIsSentAre) {
    Message discard = between_members(MessageType::kReplicate, OpKind::kDiscard);
    discard.id = {5, 6};
    discard.range = {4096, 4096};
    discard.ids = std::make_shared<const IdList>(
        IdList{{.id = {5, 6}, .applied = false, .change = {0, 16384}, .piece = {8192, 512}}});
    const char* const another = "message: ids of another change";
    expect_refused(discard, {{another, set<std::uint64_t>(layout::kId + 8, 7)},
                             {another, set<std::uint64_t>(layout::kRange, 16384)},
                             {another, [](Bytes& frame) {
                                  store_le<std::uint32_t>(frame.data() + layout::kIds, 0);
                                  frame.resize(kMessageBytes);
                              }}});
}

/// What a frame announces is not kept before it comes.
TEST(PeerRefused, ALongPartThatNeverComesTakesTheMemoryOfWhatHasCome) {
    Message message = between_members(MessageType::kFinish);
    message.record = record();
    IdList ids(kMaxIds, {.id = {1, 1}, .applied = true, .change = {0, 512}});
    message.ids = std::make_shared<const IdList>(std::move(ids));
    const Bytes frame = encoded(message);
    ASSERT_EQ(hear(frame, 4096).messages.size(), 1U) << "the most that there may be";
    Decoder decoder;
    std::size_t used = 0;
    ASSERT_TRUE(decoder.next(encode(hello_of(HostId(2))), used));
    decoder.begin_messages(kNewestVersion, kLimits);
    for (std::size_t at = 0; at < frame.size() / 2; at += 100) {
        const auto step = decoder.next(std::span(frame).subspan(at, 100), used);
        ASSERT_TRUE(step);
        ASSERT_EQ(*step, Decoder::Step::kNeedBytes);
        ASSERT_LE(decoder.kept_bytes(), 2 * (at + 100));
    }
}

}  // namespace
}  // namespace ublkd::peer
