#include "ublkd/front/nbd/handshake.h"

#include <algorithm>

#include "ublkd/base/check.h"

namespace ublkd::front::nbd {
namespace {

constexpr std::size_t kMaxEchoBytes = 80;  // of a client's name in an error text
constexpr std::size_t kLegacyZeroes = 124;

template <class T>
void append_be(std::vector<std::byte>& to, T value) {
    const std::size_t at = to.size();
    to.resize(at + sizeof value);
    store_be(to.data() + at, value);
}
void append(std::vector<std::byte>& to, std::span<const std::byte> bytes) {
    to.insert(to.end(), bytes.begin(), bytes.end());
}
std::span<const std::byte> bytes_of_text(std::string_view text) {
    return std::as_bytes(std::span<const char>(text.data(), text.size()));
}

/// Reads an option's data field by field. A length is compared with what is left before it is used.
class Reader {
  public:
    explicit Reader(std::span<const std::byte> data) : rest_(data) {}
    bool failed() const { return failed_; }
    bool at_end() const { return rest_.empty() && !failed_; }
    std::uint32_t u32() { return integer<std::uint32_t>(); }
    std::uint16_t u16() { return integer<std::uint16_t>(); }
    /// A 32-bit length and as many bytes.
    std::string_view text() {
        const std::uint32_t length = u32();
        if (failed_ || length > rest_.size()) return give_up();
        const std::string_view value(reinterpret_cast<const char*>(rest_.data()), length);
        rest_ = rest_.subspan(length);
        return value;
    }

  private:
    template <class T>
    T integer() {
        if (failed_ || rest_.size() < sizeof(T)) {
            failed_ = true;
            return 0;
        }
        const T value = load_be<T>(rest_.data());
        rest_ = rest_.subspan(sizeof(T));
        return value;
    }
    std::string_view give_up() {
        failed_ = true;
        return {};
    }
    std::span<const std::byte> rest_;
    bool failed_ = false;
};

}  // namespace

std::uint16_t transmission_flags(const block::Geometry& geometry, const Negotiated& negotiated) {
    unsigned flags = kHasFlags | kSendFlush | kSendFua | kSendCache | kCanMultiConn;
    if (geometry.read_only) {
        flags |= kReadOnlyExport;
    } else {
        flags |= kSendTrim | kSendWriteZeroes | kSendFastZero;
    }
    if (negotiated.structured_replies) flags |= kSendDf;
    return static_cast<std::uint16_t>(flags);
}

Handshake::Handshake(Tls tls) : tls_(tls) {
    append_be(output_, kGreetingMagic);
    append_be(output_, kOptionMagic);
    append_be(output_, static_cast<std::uint16_t>(kFixedNewstyle | kNoZeroes));
}

Handshake::Step Handshake::next(std::span<const std::byte> input, std::size_t& used) {
    used = 0;
    for (;;) {
        std::size_t taken = 0;
        Step step = Step::kNeedBytes;
        switch (state_) {
            case State::kClientFlags:
                step = step_flags(input, taken);
                break;
            case State::kOptions:
                step = step_option(input, taken);
                break;
            case State::kStartingTls:
                return Step::kStartTls;
            case State::kAsking:
                return Step::kAsk;
            case State::kTransmission:
                return Step::kTransmission;
            case State::kClosed:
                return Step::kClose;
        }
        used += taken;
        input = input.subspan(taken);
        if (step != Step::kNeedBytes || taken == 0) return step;
    }
}

Handshake::Step Handshake::step_flags(std::span<const std::byte> input, std::size_t& used) {
    if (input.size() < sizeof(std::uint32_t)) return Step::kNeedBytes;
    const auto flags = load_be<std::uint32_t>(input.data());
    used = sizeof flags;
    if ((flags & ~std::uint32_t{kFixedNewstyle | kNoZeroes}) != 0)
        return close("unknown client flags");
    fixed_newstyle_ = (flags & kFixedNewstyle) != 0;
    no_zeroes_ = (flags & kNoZeroes) != 0;
    state_ = State::kOptions;
    return Step::kNeedBytes;
}

Handshake::Step Handshake::step_option(std::span<const std::byte> input, std::size_t& used) {
    if (input.size() < kOptionHeaderBytes) {
        // A wrong magic is seen as soon as it is there: such a client may wait for us for ever.
        if (input.size() >= sizeof(std::uint64_t) &&
            load_be<std::uint64_t>(input.data()) != kOptionMagic)
            return close("wrong option magic");
        return Step::kNeedBytes;
    }
    if (load_be<std::uint64_t>(input.data()) != kOptionMagic) return close("wrong option magic");
    const auto length = load_be<std::uint32_t>(input.data() + 12);
    if (length > kMaxOptionBytes) return close("option of more than 64 KiB");
    const std::size_t whole = kOptionHeaderBytes + length;
    if (input.size() < whole) return Step::kNeedBytes;
    used = whole;
    if (++options_taken_ > kMaxOptions) return close("more than 64 options");
    bytes_taken_ += whole;
    if (bytes_taken_ > kMaxTotalBytes) return close("more than 1 MiB of options");
    return take_option(load_be<std::uint32_t>(input.data() + 8),
                       input.subspan(kOptionHeaderBytes, length), input.size() > whole);
}

Handshake::Step Handshake::take_option(std::uint32_t option, std::span<const std::byte> data,
                                       bool more_follows) {
    option_ = option;
    if (!fixed_newstyle_ && Option(option) != Option::kExportName)
        return close("an option other than EXPORT_NAME without fixed newstyle");
    const bool begins_or_ends =
        Option(option) == Option::kStartTls || Option(option) == Option::kAbort;
    if (tls_ == Tls::kRequired && !in_tls_ && !begins_or_ends) return refuse_in_the_clear();
    switch (Option(option)) {
        case Option::kExportName:
            return take_export_name(data);
        case Option::kAbort:
            reply(OptionReply::kAck);
            return close(nullptr);
        case Option::kList:
            if (data.empty()) return ask(Question::kList, {});
            reply_text(OptionReply::kErrInvalid, "LIST takes no data");
            return Step::kNeedBytes;
        case Option::kStartTls:
            return take_start_tls(data, more_follows);
        case Option::kInfo:
        case Option::kGo:
            return take_info_or_go(data);
        case Option::kStructuredReply:
            if (!data.empty()) {
                reply_text(OptionReply::kErrInvalid, "STRUCTURED_REPLY takes no data");
                return Step::kNeedBytes;
            }
            negotiated_.structured_replies = true;
            reply(OptionReply::kAck);
            return Step::kNeedBytes;
        case Option::kListMetaContext:
        case Option::kSetMetaContext:
            return take_meta_context(data);
    }
    reply(OptionReply::kErrUnsupported);
    return Step::kNeedBytes;
}

Handshake::Step Handshake::refuse_in_the_clear() {
    if (Option(option_) == Option::kExportName)  // which knows no error reply
        return close("EXPORT_NAME without TLS");
    reply_text(OptionReply::kErrTlsRequired, "this server is used under TLS alone");
    return Step::kNeedBytes;
}

Handshake::Step Handshake::take_start_tls(std::span<const std::byte> data, bool more_follows) {
    if (!data.empty()) {
        reply_text(OptionReply::kErrInvalid, "STARTTLS takes no data");
    } else if (tls_ == Tls::kOff) {
        reply_text(OptionReply::kErrUnsupported, "TLS is not available");
    } else if (in_tls_) {
        reply_text(OptionReply::kErrInvalid, "TLS has begun already");
    } else if (more_follows) {
        // Who sent it is not known, and it would be taken for what TLS protects.
        return close("bytes in the clear behind STARTTLS");
    } else {
        reply(OptionReply::kAck);
        state_ = State::kStartingTls;
        return Step::kStartTls;
    }
    return Step::kNeedBytes;
}

void Handshake::tls_started() {
    CHECK(state_ == State::kStartingTls, "TLS begins where the client asked for it");
    in_tls_ = true;
    state_ = State::kOptions;
    negotiated_ = {};
    context_export_.clear();
}

Handshake::Step Handshake::take_export_name(std::span<const std::byte> data) {
    if (data.size() > kMaxNameBytes) return close("export name of more than 4096 bytes");
    wants_block_size_ = false;
    return ask(Question::kOpen,
               std::string_view(reinterpret_cast<const char*>(data.data()), data.size()));
}

Handshake::Step Handshake::take_info_or_go(std::span<const std::byte> data) {
    Reader reader(data);
    const std::string_view name = reader.text();
    const std::uint16_t count = reader.u16();
    wants_name_ = wants_description_ = wants_block_size_ = false;
    for (std::uint32_t i = 0; i < count && !reader.failed(); ++i) {
        const auto info = Info(reader.u16());  // one that is not known is left out of the answer
        wants_name_ |= info == Info::kName;
        wants_description_ |= info == Info::kDescription;
        wants_block_size_ |= info == Info::kBlockSize;
    }
    if (!reader.at_end()) {
        reply_text(OptionReply::kErrInvalid, "lengths within the option do not add up");
        return Step::kNeedBytes;
    }
    if (name.size() > kMaxNameBytes) {
        reply_text(OptionReply::kErrTooBig, "export name of more than 4096 bytes");
        return Step::kNeedBytes;
    }
    return ask(Option(option_) == Option::kGo ? Question::kOpen : Question::kDescribe, name);
}

Handshake::Step Handshake::take_meta_context(std::span<const std::byte> data) {
    const bool set = Option(option_) == Option::kSetMetaContext;
    if (set) {  // each SET replaces the one before, a failed one too
        negotiated_.allocation_context = false;
        context_export_.clear();
    }
    if (!negotiated_.structured_replies) {
        reply_text(OptionReply::kErrInvalid, "structured replies are negotiated first");
        return Step::kNeedBytes;
    }
    Reader reader(data);
    const std::string_view name = reader.text();
    const std::uint32_t queries = reader.u32();
    selects_allocation_ = !set && queries == 0;
    bool syntax_ok = true;
    for (std::uint32_t i = 0; i < queries && !reader.failed(); ++i) {
        const std::string_view query = reader.text();
        if (reader.failed()) break;
        if (query.size() > kMaxNameBytes || query.find(':') == std::string_view::npos)
            syntax_ok = false;
        // "base:" alone lists the whole namespace, and selects nothing.
        if (query == kAllocationContext || (!set && query == "base:")) selects_allocation_ = true;
    }
    if (!reader.at_end() || !syntax_ok) {
        reply_text(OptionReply::kErrInvalid, "malformed metadata context queries");
        return Step::kNeedBytes;
    }
    if (name.size() > kMaxNameBytes) {
        reply_text(OptionReply::kErrTooBig, "export name of more than 4096 bytes");
        return Step::kNeedBytes;
    }
    return ask(Question::kDescribe, name);
}

Handshake::Step Handshake::ask(Question question, std::string_view name) {
    question_ = question;
    name_ = name;
    state_ = State::kAsking;
    return Step::kAsk;
}

Handshake::Step Handshake::close(const char* why) {
    protocol_error_ = why;
    state_ = State::kClosed;
    return Step::kClose;
}

// ---- answers

void Handshake::answer_list(std::span<const std::string> names) {
    CHECK(state_ == State::kAsking && question_ == Question::kList, "an answer to a question");
    state_ = State::kOptions;
    for (const std::string& name : names) {
        std::vector<std::byte> data;
        append_be(data, static_cast<std::uint32_t>(name.size()));
        append(data, bytes_of_text(name));
        reply(OptionReply::kServer, data);
    }
    reply(OptionReply::kAck);
}

void Handshake::answer(const Result<ExportInfo>& info) {
    CHECK(state_ == State::kAsking && question_ != Question::kList, "an answer to a question");
    state_ = State::kOptions;
    if (!info) {
        refuse(info.error());
        return;
    }
    switch (Option(option_)) {
        case Option::kExportName:
            answer_export_name(*info);
            break;
        case Option::kListMetaContext:
        case Option::kSetMetaContext:
            answer_meta_context();
            return;
        default:
            answer_info(*info);
            break;
    }
    if (question_ != Question::kOpen) return;
    negotiated_.knows_block_sizes = wants_block_size_;
    // Contexts hold for the export they were selected for, and for no other.
    if (context_export_ != name_) negotiated_.allocation_context = false;
    state_ = State::kTransmission;
}

void Handshake::refuse(const Error& error) {
    if (Option(option_) == Option::kExportName) {  // which knows no error reply
        close(nullptr);
        return;
    }
    if (error.code == Errc::kNotFound) {
        std::string text = "no such export: ";
        text += name_.substr(0, kMaxEchoBytes);
        if (name_.size() > kMaxEchoBytes) text += "...";
        reply_text(OptionReply::kErrUnknown, text);
    } else if (error.code == Errc::kCancelled || error.code == Errc::kClosed) {
        reply_text(OptionReply::kErrShutdown, to_string(error));
    } else {
        reply_text(OptionReply::kErrPolicy, to_string(error));
    }
}

void Handshake::answer_info(const ExportInfo& info) {
    std::vector<std::byte> data;
    append_be(data, static_cast<std::uint16_t>(Info::kExport));
    append_be(data, info.geometry.size_bytes);
    append_be(data, transmission_flags(info.geometry, negotiated_));
    reply(OptionReply::kInfo, data);
    if (wants_name_) {
        data.clear();
        append_be(data, static_cast<std::uint16_t>(Info::kName));
        append(data, bytes_of_text(info.name));
        reply(OptionReply::kInfo, data);
    }
    if (wants_description_ && !info.description.empty()) {
        data.clear();
        append_be(data, static_cast<std::uint16_t>(Info::kDescription));
        append(data, bytes_of_text(std::string_view(info.description).substr(0, kMaxNameBytes)));
        reply(OptionReply::kInfo, data);
    }
    if (wants_block_size_) {
        data.clear();
        append_be(data, static_cast<std::uint16_t>(Info::kBlockSize));
        append_be(data, info.geometry.logical_block_bytes);
        append_be(data, std::max(kPreferredBlockBytes, info.geometry.logical_block_bytes));
        append_be(data, kMaxPayloadBytes);
        reply(OptionReply::kInfo, data);
    }
    reply(OptionReply::kAck);
}

void Handshake::answer_export_name(const ExportInfo& info) {
    append_be(output_, info.geometry.size_bytes);
    append_be(output_, transmission_flags(info.geometry, negotiated_));
    if (!no_zeroes_) output_.resize(output_.size() + kLegacyZeroes);
}

void Handshake::answer_meta_context() {
    if (selects_allocation_) {
        const bool set = Option(option_) == Option::kSetMetaContext;
        if (set) {
            negotiated_.allocation_context = true;
            context_export_ = name_;
        }
        reply_context(set ? kAllocationContextId : 0);
    }
    reply(OptionReply::kAck);
}

void Handshake::reply_context(std::uint32_t id) {
    std::vector<std::byte> data;
    append_be(data, id);
    append(data, bytes_of_text(kAllocationContext));
    reply(OptionReply::kMetaContext, data);
}

void Handshake::reply_text(OptionReply type, std::string_view text) {
    reply(type, bytes_of_text(text));
}

void Handshake::reply(OptionReply type, std::span<const std::byte> data) {
    append_be(output_, kOptionReplyMagic);
    append_be(output_, option_);
    append_be(output_, static_cast<std::uint32_t>(type));
    append_be(output_, static_cast<std::uint32_t>(data.size()));
    append(output_, data);
}

}  // namespace ublkd::front::nbd
