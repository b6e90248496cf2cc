#include "tests/unit/peer/messages.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "ublkd/base/check.h"
#include "ublkd/peer/encode.h"
#include "ublkd/peer/layout.h"
#include "ublkd/peer/wire_numbers.h"

namespace ublkd::peer::test {
namespace {

using replication::IdList;
using replication::Member;
using replication::Membership;
using replication::Message;
using replication::MessageType;
using replication::NotedId;
using replication::OpKind;
using replication::RegionSet;

using Random = std::mt19937_64;

std::uint64_t below(Random& random, std::uint64_t bound) { return random() % bound; }

Range range_of(Random& random, std::uint64_t most) {
    const std::uint64_t sectors = 1 + below(random, most / kSectorBytes);
    const std::uint64_t places = kLimits.volume_bytes / kSectorBytes - sectors + 1;
    return {below(random, places) * kSectorBytes, sectors * kSectorBytes};
}

std::shared_ptr<const Membership> record_of(Random& random) {
    auto record = std::make_shared<Membership>();
    record->volume = kLimits.volume;
    record->number = 1 + random() / 2;
    record->loss_count = random();
    record->data_may_be_lost = below(random, 2) == 0;
    const std::uint64_t members = 1 + below(random, replication::kMaxMembers);
    for (std::uint64_t i = 0; i < members; ++i)
        record->members.push_back(
            Member{ReplicaId(random() | 1), HostId(random()), PoolId(random())});
    record->primary = record->members[below(random, members)].replica;
    const std::uint64_t attachments = below(random, replication::kMaxAttachments + 1);
    for (std::uint64_t i = 0; i < attachments; ++i) record->attachments.emplace_back(random() | 1);
    return record;
}

std::shared_ptr<const RegionSet> regions_of(Random& random) {
    auto regions = std::make_shared<RegionSet>();
    const std::uint64_t one_in = 1 + below(random, 100);
    for (std::uint32_t region = 0; region < kLimits.regions(); ++region) {
        if (below(random, one_in) == 0) regions->push_back(region);
    }
    return regions;
}

NotedId noted_of(Random& random, const replication::RequestId& id, const Range& change) {
    NotedId noted{.id = id, .applied = below(random, 2) == 0, .change = change};
    if (!noted.applied) {
        const std::uint64_t sectors = change.length_bytes / kSectorBytes;
        const std::uint64_t first = below(random, sectors);
        noted.piece = {change.offset_bytes + first * kSectorBytes,
                       (1 + below(random, sectors - first)) * kSectorBytes};
    }
    return noted;
}

std::shared_ptr<const IdList> ids_of(Random& random) {
    auto ids = std::make_shared<IdList>();
    for (std::uint64_t left = below(random, 20); left > 0; --left)
        ids->push_back(noted_of(random, {random() | 1, random() | 1}, range_of(random, 64 * kMiB)));
    return ids;
}

void append(Bytes& bytes, std::span<const std::byte> more) {
    bytes.insert(bytes.end(), more.begin(), more.end());
}

bool one_of(MessageType type, std::initializer_list<MessageType> types) {
    return std::ranges::find(types, type) != types.end();
}

}  // namespace

Drawn draw(Random& random, MessageType type, OpKind kind, bool failed) {
    using enum MessageType;
    const auto maybe = [&] { return below(random, 2) == 0; };
    Drawn drawn;
    Message& message = drawn.message;
    message.type = type;
    message.kind = kind;
    message.fua = maybe();
    message.keep_allocated = maybe();
    message.mark_only = maybe();
    message.in_sync = maybe();
    message.takeover = maybe();
    message.joining = maybe();
    message.by_map = maybe();
    message.check = maybe();
    message.failed = failed;
    if (failed) {
        do {
            message.error.code = Errc(below(random, 32));
        } while (wire_number(message.error.code) == 0);
        message.error.sys_errno = static_cast<std::int16_t>(below(random, 200));
    }
    message.volume = kLimits.volume;
    const bool of_client = one_of(type, {kRequest, kRelease, kFailover, kPong});
    const bool to_client = one_of(type, {kAnswer, kMoved, kPing});
    if (!of_client && !(type == kHealth && maybe())) message.from = ReplicaId(random() | 1);
    if (!to_client && !(type == kHealthy && maybe())) message.to = ReplicaId(random() | 1);
    message.attachment = AttachmentId(random());
    message.losses = random();
    message.number = random();
    if (maybe()) message.id = {random() | 1, random() | 1};
    message.token = random();
    message.route = random();
    message.value = random();
    message.through = random();
    message.cleared = random();
    const bool of_cut = kind == OpKind::kCut || kind == OpKind::kCutHolds;
    if (of_cut) message.cut = random() | 1;

    const bool has_range = one_of(type, {kRequest, kReplicate, kCopy, kFetch}) && !of_cut;
    const bool io = kind == OpKind::kRead || kind == OpKind::kWrite || kind == OpKind::kMakeEqual;
    const bool large = below(random, 16) == 0;  // few: they take their time
    const std::uint64_t most_data = large ? kMaxIoBytes : 8 * kSectorBytes;
    if (has_range) message.range = range_of(random, io ? most_data : 64 * kMiB);
    const bool carries = one_of(type, {kRequest, kReplicate, kCopy});
    if (carries && kind == OpKind::kWrite && !(type == kReplicate && message.mark_only))
        drawn.data.resize(message.range.length_bytes);
    if (one_of(type, {kAnswer, kFetched}) && kind == OpKind::kRead && !failed)
        drawn.data.resize(kSectorBytes * (1 + below(random, most_data / kSectorBytes)));
    for (std::byte& byte : drawn.data) byte = static_cast<std::byte>(random());
    message.data = drawn.data;
    if (type == kCopy && kind != OpKind::kWrite) message.check = false;

    const bool may_have_record = one_of(type, {kMoved, kReplicated, kConfirmed, kAdopted, kProbed,
                                               kCopied, kFetched, kFinished, kHealthy});
    if (one_of(type, {kAdopt, kTakeOver, kFinish}) || (may_have_record && maybe()))
        message.record = record_of(random);
    if (one_of(type, {kClear, kExamined}) || (type == kAdopted && maybe()))
        message.regions = regions_of(random);
    const bool hole = type == kCopy && kind != OpKind::kWrite;
    if (type == kFinish || (one_of(type, {kAdopt, kCopy, kFetched}) && !hole && maybe()))
        message.ids = ids_of(random);
    if (type == kReplicate && message.id.sequence != 0 && maybe()) {
        const Range whole{0, kLimits.volume_bytes};
        auto ids = std::make_shared<IdList>();
        for (std::uint64_t left = 1 + below(random, 3); left > 0; --left)
            ids->push_back(noted_of(random, message.id, whole));
        message.ids = ids;
    }
    return drawn;
}

std::vector<TypeAndKind> all_types() {
    using enum MessageType;
    using enum OpKind;
    std::vector<TypeAndKind> all;
    for (unsigned number = 0; number < 256; ++number) {
        const auto type = from_wire<MessageType>(number);
        if (!type) continue;
        std::vector<OpKind> kinds{kRead};
        if (one_of(*type, {kRequest, kAnswer, kMoved}))
            kinds = {kRead, kWrite, kDiscard, kZero, kFlush, kHold, kMakeEqual, kCut, kCutHolds};
        if (*type == kRelease) kinds = {kHold, kCut};
        if (one_of(*type, {kReplicate, kReplicated}))
            kinds = {kWrite, kDiscard, kZero, kFlush, kCut};
        if (one_of(*type, {kCopy, kCopied})) kinds = {kWrite, kDiscard};
        for (const OpKind kind : kinds) all.push_back({*type, kind});
    }
    return all;
}

std::string hex(std::span<const std::byte> bytes) {
    std::string text;
    for (const std::byte byte : bytes) text += fmt::format("{:02x}", static_cast<unsigned>(byte));
    return text;
}

std::map<std::string, std::string> fields_of(const Message& message) {
    const auto& [type, kind, fua, keep_allocated, mark_only, in_sync, takeover, joining, by_map,
                 check, failed, error, volume, from, to, attachment, losses, number, id, token,
                 route, value, cut, through, cleared, range, data, into, record, regions, ids] =
        message;
    const auto text = [](const Range& of) {
        return fmt::format("{}+{}", of.offset_bytes, of.length_bytes);
    };
    const std::string record_text = record ? hex(replication::encode(*record)) : "none";
    std::string regions_text = regions ? "there" : "none";
    if (regions) {
        for (const std::uint32_t region : *regions) regions_text += fmt::format(" {}", region);
    }
    std::string ids_text = ids ? "there" : "none";
    if (ids) {
        for (const NotedId& one : *ids)
            ids_text += fmt::format(" [{}.{} {} {} {}]", one.id.client_start, one.id.sequence,
                                    one.applied, text(one.change), text(one.piece));
    }
    std::string data_text;
    for (const std::byte byte : data) data_text += static_cast<char>(byte);
    return {{"type", fmt::format("{}", wire_number(type))},
            {"kind", fmt::format("{}", wire_number(kind))},
            {"fua", fmt::format("{}", fua)},
            {"keep_allocated", fmt::format("{}", keep_allocated)},
            {"mark_only", fmt::format("{}", mark_only)},
            {"in_sync", fmt::format("{}", in_sync)},
            {"takeover", fmt::format("{}", takeover)},
            {"joining", fmt::format("{}", joining)},
            {"by_map", fmt::format("{}", by_map)},
            {"check", fmt::format("{}", check)},
            {"failed", fmt::format("{}", failed)},
            {"error", fmt::format("{} {}", wire_number(error.code), error.sys_errno)},
            {"volume", volume.to_string()},
            {"from", from.to_string()},
            {"to", to.to_string()},
            {"attachment", attachment.to_string()},
            {"losses", fmt::format("{}", losses)},
            {"number", fmt::format("{}", number)},
            {"id", fmt::format("{}.{}", id.client_start, id.sequence)},
            {"token", fmt::format("{}", token)},
            {"route", fmt::format("{}", route)},
            {"value", fmt::format("{}", value)},
            {"cut", fmt::format("{}", cut)},
            {"through", fmt::format("{}", through)},
            {"cleared", fmt::format("{}", cleared)},
            {"range", text(range)},
            {"data", data_text},
            {"into", fmt::format("{}", into.size())},
            {"record", record_text},
            {"regions", regions_text},
            {"ids", ids_text}};
}

Bytes encoded(const Message& message, std::uint16_t version) {
    Bytes bytes(head_bytes(message));
    encode_head(message, version, kLimits, bytes);
    const auto payload = payload_of(message);
    bytes.insert(bytes.end(), payload.begin(), payload.end());
    return bytes;
}

void repair_checksums(std::span<std::byte> stream) {
    while (stream.size() >= kPrefixBytes) {
        const auto kind = FrameKind(stream[layout::kKind]);
        const std::size_t header_bytes = layout::header_bytes(kind);
        if (header_bytes == 0 || header_bytes > stream.size()) return;
        const std::span<std::byte> header = stream.first(header_bytes);
        stream = stream.subspan(header_bytes);
        if (kind == FrameKind::kMessage) {
            const std::uint64_t parts_bytes =
                load_le<std::uint16_t>(&header[layout::kRecordBytes]) +
                kRegionWordBytes *
                    std::uint64_t{load_le<std::uint32_t>(&header[layout::kRegionWords])} +
                kNotedIdBytes * std::uint64_t{load_le<std::uint32_t>(&header[layout::kIds])};
            const auto parts = stream.first(std::min<std::uint64_t>(parts_bytes, stream.size()));
            stream = stream.subspan(parts.size());
            const std::uint64_t payload_bytes =
                load_le<std::uint32_t>(&header[layout::kPayloadBytes]);
            const auto payload =
                stream.first(std::min<std::uint64_t>(payload_bytes, stream.size()));
            stream = stream.subspan(payload.size());
            store_le<std::uint32_t>(&header[layout::kPartsChecksum], crc32c(parts));
            store_le<std::uint32_t>(&header[layout::kPayloadChecksum], crc32c(payload));
        }
        layout::end_header(header);
    }
}

Hello hello_of(HostId host) {
    Hello hello{.cluster = ClusterId(0xc1), .host = host, .volume = kLimits.volume};
    for (std::size_t i = 0; i < hello.boot_id.size(); ++i)
        hello.boot_id[i] = static_cast<std::byte>(0xb0 + i);
    return hello;
}

Heard hear(Decoder& decoder, std::span<const std::byte> stream, std::size_t piece) {
    Heard heard;
    bool direct = false;
    std::size_t given = 0;
    for (;;) {
        const std::size_t end = piece == 0 ? stream.size() : std::min(stream.size(), given + piece);
        if (std::span<std::byte> room = decoder.payload_room(); !room.empty() && direct) {
            const std::size_t bytes = std::min(room.size(), end - given);
            std::copy_n(stream.begin() + static_cast<std::ptrdiff_t>(given), bytes, room.begin());
            decoder.payload_received(bytes);
            given += bytes;
        }
        std::size_t used = 0;
        const auto step = decoder.next(stream.subspan(given, end - given), used);
        CHECK(used <= end - given, "no more is taken than was given");
        given += used;
        if (!step) {
            heard.error = step.error();
            return heard;
        }
        switch (*step) {
            case Decoder::Step::kNeedBytes:
                CHECK(given == end, "it asks for more when all is used");
                if (end == stream.size()) return heard;
                break;
            case Decoder::Step::kNeedBuffer:
                heard.payloads.emplace_back(decoder.payload_bytes());
                decoder.give_buffer(heard.payloads.back());
                direct = !direct;
                break;
            case Decoder::Step::kHello:
                decoder.begin_messages(kNewestVersion, kLimits);
                append(heard.again, encode(decoder.hello()));
                break;
            case Decoder::Step::kRefusal:
                append(heard.again, encode(decoder.refusal()));
                break;
            case Decoder::Step::kAlive:
                append(heard.again, encode_alive(kNewestVersion));
                break;
            case Decoder::Step::kMessage:
                heard.messages.push_back(decoder.message());
                append(heard.again, encoded(decoder.message()));
                break;
        }
        if (*step != Decoder::Step::kNeedBytes && *step != Decoder::Step::kNeedBuffer)
            heard.frames.push_back(*step);
    }
}

Heard hear(std::span<const std::byte> stream, std::size_t piece) {
    Decoder decoder;
    std::size_t used = 0;
    const auto step = decoder.next(encode(hello_of(HostId(2))), used);
    CHECK(step && *step == Decoder::Step::kHello, "a hello");
    decoder.begin_messages(kNewestVersion, kLimits);
    return hear(decoder, stream, piece);
}

}  // namespace ublkd::peer::test
