#include "ublkd/peer/decoder.h"

#include <algorithm>
#include <bit>
#include <memory>
#include <utility>

#include "ublkd/base/bytes.h"
#include "ublkd/base/check.h"
#include "ublkd/base/crc32c.h"
#include "ublkd/peer/layout.h"
#include "ublkd/peer/shape.h"
#include "ublkd/peer/wire_numbers.h"

namespace ublkd::peer {
namespace {

using replication::IdList;
using replication::Message;
using replication::NotedId;
using replication::RegionSet;

constexpr std::size_t kKeptPartsBytes = 64 * 1024;  // memory for parts that a connection keeps

}  // namespace

void Decoder::begin_messages(std::uint16_t version, const Limits& limits) {
    CHECK(greeted_ && !limits_, "messages follow a hello");
    CHECK(limits.volume && is_aligned(limits.volume_bytes, kSectorBytes) && limits.region_bytes > 0,
          "a volume's limits");
    CHECK(limits.regions() <= UINT32_MAX, "regions are numbered by 32 bits");
    version_ = version;
    limits_ = limits;
}

Result<Decoder::Step> Decoder::next(std::span<const std::byte> input, std::size_t& used) {
    used = 0;
    if (state_ == State::kFailed) return fail(error_);
    const Result<Step> result = step(input, used);
    if (!result) {
        error_ = result.error();
        state_ = State::kFailed;
    }
    return result;
}

Result<Decoder::Step> Decoder::step(std::span<const std::byte> input, std::size_t& used) {
    for (;;) {
        const std::span<const std::byte> rest = input.subspan(used);
        switch (state_) {
            case State::kHeader: {
                const std::size_t taken = std::min(rest.size(), header_bytes_ - header_have_);
                std::copy_n(rest.begin(), taken,
                            header_.begin() + static_cast<std::ptrdiff_t>(header_have_));
                header_have_ += taken;
                used += taken;
                if (header_have_ < header_bytes_) return Step::kNeedBytes;
                const bool whole = header_bytes_ > kPrefixBytes;
                TRY_ASSIGN(const Step step, whole ? end_header() : begin_frame());
                if (step != Step::kNeedBytes) return step;
                break;
            }
            case State::kParts: {
                const std::size_t taken = std::min(rest.size(), parts_bytes_ - parts_.size());
                parts_.insert(parts_.end(), rest.begin(),
                              rest.begin() + static_cast<std::ptrdiff_t>(taken));
                used += taken;
                if (parts_.size() < parts_bytes_) return Step::kNeedBytes;
                TRY_ASSIGN(const Step step, end_parts());
                if (step != Step::kNeedBytes) return step;
                break;
            }
            case State::kBuffer:
                return Step::kNeedBuffer;
            case State::kPayload: {
                const std::size_t taken = std::min(rest.size(), payload_bytes_ - payload_have_);
                std::copy_n(rest.begin(), taken,
                            payload_.begin() + static_cast<std::ptrdiff_t>(payload_have_));
                payload_have_ += taken;
                used += taken;
                if (payload_have_ < payload_bytes_) return Step::kNeedBytes;
                return end_payload();
            }
            case State::kFailed:
                return fail(error_);
        }
    }
}

/// What all headers begin with is there: kNeedBytes, to go on with the rest of it.
Result<Decoder::Step> Decoder::begin_frame() {
    const std::byte* const at = header_.data();
    if (load_le<std::uint32_t>(at + layout::kMagic) != kMagic)
        return fail(Errc::kProtocol, "frame: magic");
    kind_ = FrameKind(at[layout::kKind]);
    header_bytes_ = layout::header_bytes(kind_);
    if (header_bytes_ == 0) return fail(Errc::kProtocol, "frame: unknown kind");
    const bool of_hello = kind_ == FrameKind::kHello || kind_ == FrameKind::kRefusal;
    if (!of_hello && !limits_) return fail(Errc::kProtocol, "frame: before the hello");
    if (load_le<std::uint16_t>(at + layout::kVersion) != (of_hello ? kHelloVersion : version_))
        return fail(Errc::kUnsupported, "frame: version");
    if (kind_ == FrameKind::kHello && greeted_)
        return fail(Errc::kProtocol, "frame: a second hello");
    return header_bytes_ == kPrefixBytes ? end_header() : Step::kNeedBytes;
}

Result<Decoder::Step> Decoder::end_header() {
    const std::span<const std::byte> header(header_.data(), header_bytes_);
    if (load_le<std::uint32_t>(header_.data() + layout::kChecksum) !=
        layout::header_checksum(header))
        return fail(Errc::kCorrupt, "frame: checksum of the header");
    if (header_[layout::kKind + 1] != std::byte{0})
        return fail(Errc::kProtocol, "frame: not zero where it should be");
    switch (kind_) {
        case FrameKind::kHello: {
            TRY_ASSIGN(hello_, decode_hello(header.first<kHelloBytes>()));
            greeted_ = true;
            return frame(Step::kHello);
        }
        case FrameKind::kRefusal: {
            TRY_ASSIGN(refusal_, decode_refusal(header.first<kRefusalBytes>()));
            return frame(Step::kRefusal);
        }
        case FrameKind::kAlive:
            if (!is_all_zero(header.subspan(layout::kPartsChecksum)))
                return fail(Errc::kProtocol, "frame: not zero where it should be");
            return frame(Step::kAlive);
        case FrameKind::kMessage:
            return begin_message();
    }
    return fail(Errc::kProtocol, "frame: unknown kind");
}

/// It is whole; the next call begins with another one.
Result<Decoder::Step> Decoder::frame(Step step) {
    state_ = State::kHeader;
    header_bytes_ = kPrefixBytes;
    header_have_ = 0;
    return step;
}

/// Lengths are compared with the limits before anything is kept for them.
Result<Decoder::Step> Decoder::begin_message() {
    const std::byte* const at = header_.data();
    TRY(take_fields());
    record_bytes_ = load_le<std::uint16_t>(at + layout::kRecordBytes);
    region_words_ = load_le<std::uint32_t>(at + layout::kRegionWords);
    ids_ = load_le<std::uint32_t>(at + layout::kIds);
    payload_bytes_ = load_le<std::uint32_t>(at + layout::kPayloadBytes);
    const auto flags = load_le<std::uint32_t>(at + layout::kFlags);
    if (record_bytes_ > replication::kMaxRecordBytes || region_words_ > limits_->region_words() ||
        ids_ > kMaxIds || payload_bytes_ > kMaxIoBytes)
        return fail(Errc::kProtocol, "message: a length beyond its limit");
    if ((region_words_ > 0 && (flags & layout::kHasRegions) == 0) ||
        (ids_ > 0 && (flags & layout::kHasIds) == 0))
        return fail(Errc::kProtocol, "message: parts that its flags have not");
    parts_bytes_ = record_bytes_ + region_words_ * kRegionWordBytes + ids_ * kNotedIdBytes;
    parts_.clear();
    if (parts_.capacity() > kKeptPartsBytes) parts_.shrink_to_fit();
    payload_ = {};
    payload_have_ = 0;
    state_ = State::kParts;
    return Step::kNeedBytes;
}

Result<void> Decoder::take_fields() {
    const std::byte* const at = header_.data();
    const std::span<const std::byte> header(header_);
    const auto flags = load_le<std::uint32_t>(at + layout::kFlags);
    const auto type =
        from_wire<replication::MessageType>(static_cast<std::uint8_t>(header_[layout::kType]));
    const auto kind =
        from_wire<replication::OpKind>(static_cast<std::uint8_t>(header_[layout::kOpKind]));
    if (!type) return fail(Errc::kProtocol, "message: unknown type");
    if (!kind) return fail(Errc::kProtocol, "message: unknown kind");
    if ((flags & ~layout::kKnownFlags) != 0) return fail(Errc::kProtocol, "message: unknown flag");
    if (!is_all_zero(header.subspan(layout::kErrno + 2, 4)) ||
        !is_all_zero(header.subspan(layout::kMessageEnd)))
        return fail(Errc::kProtocol, "message: not zero where it should be");

    message_ = Message{};
    message_.type = *type;
    message_.kind = *kind;
    for (const auto& [flag, field] : layout::kFields) message_.*field = (flags & flag) != 0;
    const auto code = load_le<std::uint16_t>(at + layout::kError);
    const auto sys_errno = load_le<std::int16_t>(at + layout::kErrno);
    if (message_.failed) {
        const auto error = from_wire<Errc>(code);
        if (!error || sys_errno < 0) return fail(Errc::kProtocol, "message: unknown error");
        message_.error = Error{*error, sys_errno, "another host"};
    } else if (code != 0 || sys_errno != 0) {
        return fail(Errc::kProtocol, "message: an error without failure");
    }
    message_.volume = VolumeId(load_le<std::uint64_t>(at + layout::kMessageVolume));
    message_.from = ReplicaId(load_le<std::uint64_t>(at + layout::kFrom));
    message_.to = ReplicaId(load_le<std::uint64_t>(at + layout::kTo));
    message_.attachment = AttachmentId(load_le<std::uint64_t>(at + layout::kAttachment));
    message_.losses = load_le<std::uint64_t>(at + layout::kLosses);
    message_.number = load_le<std::uint64_t>(at + layout::kNumber);
    message_.id = layout::load_id(at + layout::kId);
    message_.token = load_le<std::uint64_t>(at + layout::kToken);
    message_.value = load_le<std::uint64_t>(at + layout::kValue);
    message_.through = load_le<std::uint64_t>(at + layout::kThrough);
    message_.cleared = load_le<std::uint64_t>(at + layout::kCleared);
    message_.range = layout::load_range(at + layout::kRange);
    message_.cut = load_le<std::uint64_t>(at + layout::kCut);
    return {};
}

Result<Decoder::Step> Decoder::end_parts() {
    const std::byte* const at = header_.data();
    if (load_le<std::uint32_t>(at + layout::kPartsChecksum) != crc32c(parts_))
        return fail(Errc::kCorrupt, "message: checksum of the parts");
    const auto flags = load_le<std::uint32_t>(at + layout::kFlags);
    const std::span<const std::byte> parts(parts_);
    const std::size_t regions_bytes = region_words_ * kRegionWordBytes;
    if (record_bytes_ > 0) {
        TRY(take_record(parts.first(record_bytes_)));
    }
    if ((flags & layout::kHasRegions) != 0) {
        TRY(take_regions(parts.subspan(record_bytes_, regions_bytes)));
    }
    if ((flags & layout::kHasIds) != 0) {
        TRY(take_ids(parts.subspan(record_bytes_ + regions_bytes)));
    }
    if (message_.ids.get() != ids_of(message_)) return fail(Errc::kProtocol, "message: ids");
    TRY(check_shape(message_, payload_bytes_, *limits_));
    if (payload_bytes_ > 0) {
        state_ = State::kBuffer;
        return Step::kNeedBytes;
    }
    return end_payload();
}

Result<Decoder::Step> Decoder::end_payload() {
    if (load_le<std::uint32_t>(header_.data() + layout::kPayloadChecksum) != crc32c(payload_))
        return fail(Errc::kCorrupt, "message: checksum of the payload");
    message_.data = payload_;
    return frame(Step::kMessage);
}

/// A record says the same in one form alone.
Result<void> Decoder::take_record(std::span<const std::byte> bytes) {
    TRY_ASSIGN(replication::Membership record, replication::decode_membership(bytes));
    if (!std::ranges::equal(replication::encode(record), bytes))
        return fail(Errc::kProtocol, "message: a record in another form");
    message_.record = std::make_shared<const replication::Membership>(std::move(record));
    return {};
}

Result<void> Decoder::take_regions(std::span<const std::byte> bytes) {
    std::size_t count = 0;
    for (std::size_t at = 0; at < bytes.size(); at += kRegionWordBytes)
        count +=
            static_cast<std::size_t>(std::popcount(load_le<std::uint64_t>(bytes.data() + at + 4)));
    RegionSet regions;
    regions.reserve(count);
    std::optional<std::uint32_t> last;
    for (std::size_t at = 0; at < bytes.size(); at += kRegionWordBytes) {
        const auto word = load_le<std::uint32_t>(bytes.data() + at);
        auto bits = load_le<std::uint64_t>(bytes.data() + at + 4);
        if (word >= limits_->region_words() || bits == 0 || (last && word <= *last))
            return fail(Errc::kProtocol, "message: regions");
        last = word;
        for (; bits != 0; bits &= bits - 1)
            regions.push_back(word * kRegionsInWord +
                              static_cast<std::uint32_t>(std::countr_zero(bits)));
    }
    message_.regions = std::make_shared<const RegionSet>(std::move(regions));
    return {};
}

Result<void> Decoder::take_ids(std::span<const std::byte> bytes) {
    IdList ids;
    ids.reserve(ids_);
    for (std::size_t i = 0; i < ids_; ++i) {
        const std::span<const std::byte> one = bytes.subspan(i * kNotedIdBytes, kNotedIdBytes);
        const std::byte* const at = one.data();
        NotedId noted;
        noted.id = layout::load_id(at + layout::kNotedId);
        noted.change = layout::load_range(at + layout::kNotedChange);
        noted.piece = layout::load_range(at + layout::kNotedPiece);
        noted.applied = at[layout::kNotedApplied] == std::byte{1};
        const bool known =
            noted.applied ? noted.piece == Range{} : at[layout::kNotedApplied] == std::byte{0};
        if (!known || !is_all_zero(one.subspan(layout::kNotedApplied + 1)))
            return fail(Errc::kProtocol, "message: an id not zero where it should be");
        ids.push_back(noted);
    }
    message_.ids = std::make_shared<const IdList>(std::move(ids));
    return {};
}

void Decoder::give_buffer(std::span<std::byte> buffer) {
    CHECK(state_ == State::kBuffer && buffer.size() == payload_bytes_, "a payload's memory");
    payload_ = buffer;
    state_ = State::kPayload;
}

std::span<std::byte> Decoder::payload_room() const {
    return state_ == State::kPayload ? payload_.subspan(payload_have_) : std::span<std::byte>{};
}

void Decoder::payload_received(std::size_t bytes) {
    CHECK(bytes <= payload_room().size(), "no more than there is room");
    payload_have_ += bytes;
}

}  // namespace ublkd::peer
