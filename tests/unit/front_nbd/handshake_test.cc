// The handshake as a state machine, without a socket: every option in every state, twice; then what
// each option answers, and what is refused. Questions are answered for one export, "disk".
#include "ublkd/front/nbd/handshake.h"

#include <gtest/gtest.h>

#include <functional>

#include "tests/unit/front_nbd/raw_client.h"

namespace ublkd::front::nbd::test {
namespace {

using Step = Handshake::Step;

/// Drives a handshake as session.cc does, and keeps what it sent.
struct Driver {
    Handshake handshake;
    Bytes unread;
    Bytes sent;
    unsigned opens = 0;

    explicit Driver(Tls tls = Tls::kOff) : handshake(tls) { take_output(); }
    void take_output() {
        sent = sent + handshake.output();
        handshake.output().clear();
    }
    static Result<ExportInfo> look_up(const std::string& name) {
        ExportInfo info{"disk", "a disk", block::Geometry{.size_bytes = kMiB}};
        if (name == "disk" || name.empty()) return info;
        if (name == "read-only") {
            info.geometry.read_only = true;
            return info;
        }
        return fail(Errc::kNotFound, "export");
    }
    Step feed(const Bytes& bytes) {
        unread = unread + bytes;
        for (;;) {
            std::size_t used = 0;
            const Step step = handshake.next(unread, used);
            EXPECT_LE(used, unread.size());
            unread.erase(unread.begin(), unread.begin() + static_cast<std::ptrdiff_t>(used));
            if (step == Step::kAsk) {
                if (handshake.question() == Handshake::Question::kList) {
                    const std::vector<std::string> names{"disk", "read-only"};
                    handshake.answer_list(names);
                } else {
                    if (handshake.question() == Handshake::Question::kOpen) ++opens;
                    handshake.answer(look_up(handshake.export_name()));
                }
                take_output();
                continue;
            }
            take_output();
            return step;
        }
    }
    /// The answers since the last call; the greeting does not count.
    std::vector<OptionAnswer> answers() {
        std::vector<OptionAnswer> found;
        std::size_t at = seen_;
        while (at + 20 <= sent.size() &&
               load_be<std::uint64_t>(sent.data() + at) == kOptionReplyMagic) {
            OptionAnswer answer;
            answer.option = load_be<std::uint32_t>(sent.data() + at + 8);
            answer.type = OptionReply(load_be<std::uint32_t>(sent.data() + at + 12));
            const std::size_t length = load_be<std::uint32_t>(sent.data() + at + 16);
            answer.data.assign(sent.begin() + static_cast<std::ptrdiff_t>(at + 20),
                               sent.begin() + static_cast<std::ptrdiff_t>(at + 20 + length));
            at += 20 + length;
            found.push_back(std::move(answer));
        }
        seen_ = at;
        return found;
    }

  private:
    std::size_t seen_ = 18;
};

Driver greeted(Tls tls = Tls::kOff) {
    Driver driver(tls);
    EXPECT_EQ(driver.feed(be32(kFixedNewstyle | kNoZeroes)), Step::kNeedBytes);
    return driver;
}

struct Move {
    const char* name;
    Bytes bytes;
};
std::vector<Move> all_moves() {
    return {
        {"export_name", option(Option::kExportName, text("disk"))},
        {"export_name_unknown", option(Option::kExportName, text("nope"))},
        {"abort", option(Option::kAbort)},
        {"list", option(Option::kList)},
        {"peek", option(Option(4))},
        {"starttls", option(Option::kStartTls)},
        {"info", option(Option::kInfo,
                        info_data("disk", {Info::kName, Info::kBlockSize, Info::kDescription}))},
        {"info_unknown", option(Option::kInfo, info_data("nope"))},
        {"go", option(Option::kGo, info_data("disk"))},
        {"go_unknown", option(Option::kGo, info_data("nope"))},
        {"structured", option(Option::kStructuredReply)},
        {"list_meta", option(Option::kListMetaContext, context_data("disk", {}))},
        {"set_meta", option(Option::kSetMetaContext, context_data("disk", {kAllocationContext}))},
        {"extended_headers", option(Option(11))},
        {"unknown", option(Option(0xdeadbeef), text("junk"))},
    };
}

/// A state is what a sequence of moves leads to; every move is then made twice in it.
std::vector<std::pair<const char*, Bytes>> all_states() {
    const Bytes structured = option(Option::kStructuredReply);
    const Bytes set = option(Option::kSetMetaContext, context_data("disk", {kAllocationContext}));
    return {
        {"fresh", {}},
        {"structured", structured},
        {"context", structured + set},
        {"context_lost",
         structured + set + option(Option::kSetMetaContext, context_data("nope", {}))},
        {"informed", option(Option::kInfo, info_data("disk"))},
        {"refused", option(Option::kGo, info_data("nope"))},
        {"tls_refused", option(Option::kStartTls)},
        {"listed", option(Option::kList)},
        {"invalid", option(Option::kGo, text("x"))},
        {"unknown", option(Option(77))},
    };
}

TEST(NbdHandshake, Hostile09EveryOptionInEveryStateTwiceIsAnsweredOrEndsTheConnection) {
    for (const auto& [state, path] : all_states()) {
        for (const Move& move : all_moves()) {
            SCOPED_TRACE(std::string(state) + " then " + move.name + " twice");
            Driver driver = greeted();
            ASSERT_EQ(driver.feed(path), Step::kNeedBytes);
            driver.answers();
            Step step = Step::kNeedBytes;
            for (int time = 0; time < 2 && step == Step::kNeedBytes; ++time) {
                step = driver.feed(move.bytes);
                if (step != Step::kNeedBytes) break;
                const auto answers = driver.answers();
                ASSERT_FALSE(answers.empty());
                for (const auto& answer : answers)
                    EXPECT_EQ(answer.option, load_be<std::uint32_t>(move.bytes.data() + 8));
            }
            if (step == Step::kNeedBytes) {  // still in sync: the next option is answered as ever
                ASSERT_EQ(driver.feed(option(Option::kList)), Step::kNeedBytes);
                EXPECT_EQ(driver.answers().size(), 3U);
                EXPECT_EQ(driver.opens, 0U + (std::string(move.name) == "go_unknown" ? 2 : 0) +
                                            (std::string(state) == "refused" ? 1 : 0));
            } else if (step == Step::kTransmission) {
                EXPECT_TRUE(std::string(move.name) == "go" ||
                            std::string(move.name) == "export_name");
            } else {
                EXPECT_TRUE(std::string(move.name) == "abort" ||
                            std::string(move.name) == "export_name_unknown");
            }
        }
    }
}

TEST(NbdHandshake, Hostile09EveryPairOfOptionsKeepsTheStreamInSync) {
    for (const Move& first : all_moves()) {
        for (const Move& second : all_moves()) {
            SCOPED_TRACE(std::string(first.name) + " then " + second.name);
            Driver driver = greeted();
            if (driver.feed(first.bytes) != Step::kNeedBytes) continue;
            if (driver.feed(second.bytes) != Step::kNeedBytes) continue;
            driver.answers();
            ASSERT_EQ(driver.feed(option(Option::kStartTls)), Step::kNeedBytes);
            const auto answers = driver.answers();
            ASSERT_EQ(answers.size(), 1U);
            EXPECT_EQ(answers[0].type, OptionReply::kErrUnsupported);
        }
    }
}

TEST(NbdHandshake, BytesOneByOneGiveTheSameAsAllAtOnce) {
    const Bytes all = be32(kFixedNewstyle) + option(Option::kStructuredReply) +
                      option(Option::kList) +
                      option(Option::kSetMetaContext, context_data("disk", {kAllocationContext})) +
                      option(Option::kGo, info_data("disk", {Info::kBlockSize})) + text("rest");
    Driver at_once;
    EXPECT_EQ(at_once.feed(all), Step::kTransmission);
    Driver one_by_one;
    Step step = Step::kNeedBytes;
    for (std::size_t i = 0; i < all.size() - 4; ++i) {
        ASSERT_EQ(step, Step::kNeedBytes);
        step = one_by_one.feed({all[i]});
    }
    EXPECT_EQ(step, Step::kTransmission);
    EXPECT_EQ(one_by_one.sent, at_once.sent);
    EXPECT_EQ(at_once.unread, text("rest")) << "what follows belongs to the transmission phase";
    EXPECT_TRUE(at_once.handshake.negotiated().structured_replies);
    EXPECT_TRUE(at_once.handshake.negotiated().allocation_context);
    EXPECT_TRUE(at_once.handshake.negotiated().knows_block_sizes);
}

TEST(NbdHandshake, GoTellsSizeFlagsAndWhatWasAskedFor) {
    Driver driver = greeted();
    driver.feed(option(Option::kStructuredReply));
    driver.answers();
    EXPECT_EQ(driver.feed(option(Option::kGo, info_data("", {Info::kName, Info::kDescription,
                                                             Info::kBlockSize, Info(99)}))),
              Step::kTransmission);
    const auto answers = driver.answers();
    ASSERT_EQ(answers.size(), 5U);
    EXPECT_EQ(answers[0].data,
              be16(0) + be64(kMiB) +
                  be16(kHasFlags | kSendFlush | kSendFua | kSendTrim | kSendWriteZeroes | kSendDf |
                       kCanMultiConn | kSendCache | kSendFastZero));
    EXPECT_EQ(answers[1].data, be16(1) + text("disk"));
    EXPECT_EQ(answers[2].data, be16(2) + text("a disk"));
    EXPECT_EQ(answers[3].data, be16(3) + be32(512) + be32(4096) + be32(32 * kMiB));
    EXPECT_EQ(answers[4].type, OptionReply::kAck);
}

TEST(NbdHandshake, WithoutStructuredRepliesDontFragmentIsNotOffered) {
    Driver driver = greeted();
    driver.feed(option(Option::kInfo, info_data("disk")));
    const auto answers = driver.answers();
    ASSERT_EQ(answers.size(), 2U);
    EXPECT_EQ(load_be<std::uint16_t>(answers[0].data.data() + 10) & kSendDf, 0);
}

TEST(NbdHandshake, AReadOnlyExportOffersNoChanges) {
    Driver driver = greeted();
    driver.feed(option(Option::kInfo, info_data("read-only")));
    const auto answers = driver.answers();
    ASSERT_EQ(answers.size(), 2U);
    EXPECT_EQ(load_be<std::uint16_t>(answers[0].data.data() + 10),
              kHasFlags | kReadOnlyExport | kSendFlush | kSendFua | kSendCache | kCanMultiConn);
}

TEST(NbdHandshake, ExportNameIsFollowedByZeroesUnlessTheClientWantsNone) {
    Driver with_zeroes;
    with_zeroes.feed(be32(kFixedNewstyle));
    EXPECT_EQ(with_zeroes.feed(option(Option::kExportName, text("disk"))), Step::kTransmission);
    EXPECT_EQ(with_zeroes.sent.size(), 18U + 10 + 124);
    Driver without = greeted();
    EXPECT_EQ(without.feed(option(Option::kExportName, text("disk"))), Step::kTransmission);
    EXPECT_EQ(without.sent.size(), 18U + 10);
}

TEST(NbdHandshake, WithoutFixedNewstyleOnlyExportNameIsTaken) {
    Driver old;
    old.feed(be32(0));
    EXPECT_EQ(old.feed(option(Option::kExportName, text("disk"))), Step::kTransmission);
    Driver wrong;
    wrong.feed(be32(0));
    EXPECT_EQ(wrong.feed(option(Option::kList)), Step::kClose);
    EXPECT_NE(wrong.handshake.protocol_error(), nullptr);
}

TEST(NbdHandshake, UnknownClientFlagsEndTheConnection) {
    for (const std::uint32_t flags : {4U, 0x80000000U, 0xffffffffU}) {
        Driver driver;
        EXPECT_EQ(driver.feed(be32(flags)), Step::kClose);
        EXPECT_EQ(driver.sent.size(), 18U) << "nothing but the greeting was sent";
    }
}

TEST(NbdHandshake, AbortIsAcknowledgedAndEnds) {
    Driver driver = greeted();
    EXPECT_EQ(driver.feed(option(Option::kAbort)), Step::kClose);
    const auto answers = driver.answers();
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_EQ(answers[0].type, OptionReply::kAck);
    EXPECT_EQ(driver.handshake.protocol_error(), nullptr);
}

TEST(NbdHandshake, Hostile01StartTlsIsAnsweredAsNotAvailableAndChangesNothing) {
    Driver driver = greeted();
    driver.feed(option(Option::kStructuredReply));
    driver.answers();
    // Pipelined behind STARTTLS: answered in the clear, as nothing was upgraded (CVE-2021-3716 is
    // about upgrading).
    EXPECT_EQ(driver.feed(option(Option::kStartTls) + option(Option::kList)), Step::kNeedBytes);
    const auto answers = driver.answers();
    ASSERT_EQ(answers.size(), 4U);
    EXPECT_EQ(answers[0].type, OptionReply::kErrUnsupported);
    EXPECT_TRUE(driver.handshake.negotiated().structured_replies);
    driver.feed(option(Option::kStartTls, text("x")));
    EXPECT_EQ(driver.answers()[0].type, OptionReply::kErrInvalid);
}

TEST(NbdHandshake, Hostile01NothingButStartTlsAndAbortIsAnsweredInTheClearWhereTlsIsRequired) {
    for (const Move& move : all_moves()) {
        SCOPED_TRACE(move.name);
        Driver driver = greeted(Tls::kRequired);
        const Step step = driver.feed(move.bytes);
        const std::string name = move.name;
        EXPECT_EQ(driver.opens, 0U);
        EXPECT_FALSE(driver.handshake.negotiated().structured_replies);
        if (name == "starttls") {
            EXPECT_EQ(step, Step::kStartTls);
        } else if (name.starts_with("export_name") || name == "abort") {
            EXPECT_EQ(step, Step::kClose);
            EXPECT_EQ(driver.handshake.protocol_error() == nullptr, name == "abort");
        } else {
            ASSERT_EQ(step, Step::kNeedBytes);
            const auto answers = driver.answers();
            ASSERT_EQ(answers.size(), 1U);
            EXPECT_EQ(answers[0].type, OptionReply::kErrTlsRequired);
            EXPECT_EQ(driver.feed(option(Option::kStartTls)), Step::kStartTls) << "in sync";
        }
    }
}

TEST(NbdHandshake, Hostile01BytesInTheClearBehindStartTlsEndTheConnection) {
    for (const Bytes& more : {option(Option::kStructuredReply), Bytes(1)}) {
        Driver driver = greeted(Tls::kRequired);
        EXPECT_EQ(driver.feed(option(Option::kStartTls) + more), Step::kClose);
        EXPECT_NE(driver.handshake.protocol_error(), nullptr);
        EXPECT_TRUE(driver.answers().empty());
    }
}

TEST(NbdHandshake, StartTlsTakesNoDataAndComesOnce) {
    Driver driver = greeted(Tls::kRequired);
    EXPECT_EQ(driver.feed(option(Option::kStartTls, text("x"))), Step::kNeedBytes);
    EXPECT_EQ(driver.answers().at(0).type, OptionReply::kErrInvalid);
    EXPECT_EQ(driver.feed(option(Option::kStartTls)), Step::kStartTls);
    EXPECT_EQ(driver.answers().at(0).type, OptionReply::kAck);
    driver.handshake.tls_started();
    EXPECT_EQ(driver.feed(option(Option::kStartTls)), Step::kNeedBytes);
    EXPECT_EQ(driver.answers().at(0).type, OptionReply::kErrInvalid);
}

TEST(NbdHandshake, UnderTlsEachOptionIsAnsweredAsItIsWithoutInTheClear) {
    for (const Move& move : all_moves()) {
        if (std::string(move.name) == "starttls") continue;
        SCOPED_TRACE(move.name);
        Driver clear = greeted();
        Driver tls = greeted(Tls::kRequired);
        ASSERT_EQ(tls.feed(option(Option::kStartTls)), Step::kStartTls);
        tls.answers();
        tls.handshake.tls_started();
        const std::size_t clear_before = clear.sent.size();
        const std::size_t tls_before = tls.sent.size();
        EXPECT_EQ(tls.feed(move.bytes), clear.feed(move.bytes));
        EXPECT_TRUE(std::equal(
            clear.sent.begin() + static_cast<std::ptrdiff_t>(clear_before), clear.sent.end(),
            tls.sent.begin() + static_cast<std::ptrdiff_t>(tls_before), tls.sent.end()));
    }
}

// ---- metadata contexts

std::vector<OptionAnswer> ask_contexts(Option which, std::string_view name,
                                       std::vector<std::string_view> queries) {
    Driver driver = greeted();
    driver.feed(option(Option::kStructuredReply));
    driver.answers();
    EXPECT_EQ(driver.feed(option(which, context_data(name, std::move(queries)))), Step::kNeedBytes);
    return driver.answers();
}

TEST(NbdHandshake, ContextsNeedStructuredReplies) {
    for (const Option which : {Option::kListMetaContext, Option::kSetMetaContext}) {
        Driver driver = greeted();
        driver.feed(option(which, context_data("disk", {kAllocationContext})));
        EXPECT_EQ(driver.answers()[0].type, OptionReply::kErrInvalid);
    }
}

TEST(NbdHandshake, ListMetaContextShowsAllOrWhatMatches) {
    EXPECT_EQ(ask_contexts(Option::kListMetaContext, "disk", {}).size(), 2U);
    EXPECT_EQ(ask_contexts(Option::kListMetaContext, "disk", {"base:"}).size(), 2U);
    EXPECT_EQ(ask_contexts(Option::kListMetaContext, "disk", {kAllocationContext}).size(), 2U);
    EXPECT_EQ(ask_contexts(Option::kListMetaContext, "disk", {"qemu:dirty-bitmap:x"}).size(), 1U);
    const auto listed = ask_contexts(Option::kListMetaContext, "disk", {});
    EXPECT_EQ(listed[0].data, be32(0) + text(kAllocationContext));
}

TEST(NbdHandshake, SetMetaContextSelectsWhatIsNamedInFullAndOnce) {
    const auto chosen = ask_contexts(Option::kSetMetaContext, "disk",
                                     {kAllocationContext, "x:y", kAllocationContext});
    ASSERT_EQ(chosen.size(), 2U);
    EXPECT_EQ(chosen[0].data, be32(kAllocationContextId) + text(kAllocationContext));
    EXPECT_EQ(ask_contexts(Option::kSetMetaContext, "disk", {"base:"}).size(), 1U)
        << "a namespace alone selects nothing";
    EXPECT_EQ(ask_contexts(Option::kSetMetaContext, "disk", {}).size(), 1U);
    EXPECT_EQ(ask_contexts(Option::kSetMetaContext, "nope", {kAllocationContext})[0].type,
              OptionReply::kErrUnknown);
    EXPECT_EQ(ask_contexts(Option::kSetMetaContext, "disk", {"no colon"})[0].type,
              OptionReply::kErrInvalid);
}

TEST(NbdHandshake, AContextHoldsForTheExportItWasSelectedFor) {
    const Bytes set_disk =
        option(Option::kSetMetaContext, context_data("disk", {kAllocationContext}));
    const auto selected_at_go = [](const Bytes& options, std::string_view name) {
        Driver driver = greeted();
        driver.feed(option(Option::kStructuredReply) + options);
        EXPECT_EQ(driver.feed(option(Option::kGo, info_data(name))), Step::kTransmission);
        return driver.handshake.negotiated().allocation_context;
    };
    EXPECT_TRUE(selected_at_go(set_disk, "disk"));
    EXPECT_FALSE(selected_at_go(set_disk, "read-only"));
    EXPECT_FALSE(selected_at_go(
        set_disk + option(Option::kSetMetaContext, context_data("disk", {})), "disk"));
    EXPECT_FALSE(selected_at_go(set_disk + option(Option::kSetMetaContext, text("x")), "disk"))
        << "a failed SET leaves none selected";
}

// ---- malformed options (the numbers are those of docs/nbd.md, "Hostile clients")

TEST(NbdHandshake, Hostile02NameLengthOf32BitsIsRefusedBeforeItIsUsed) {
    for (const Option which : {Option::kInfo, Option::kGo}) {
        for (const std::uint32_t length : {0xffffffffU, 0xfffffffeU, 0x80000000U, 5U}) {
            Driver driver = greeted();
            EXPECT_EQ(driver.feed(option(which, be32(length) + text("disk") + be16(0))),
                      Step::kNeedBytes);
            const auto answers = driver.answers();
            ASSERT_EQ(answers.size(), 1U);
            EXPECT_EQ(answers[0].type, OptionReply::kErrInvalid);
            EXPECT_EQ(driver.opens, 0U);
        }
    }
    Driver driver = greeted();
    EXPECT_EQ(driver.feed(be64(kOptionMagic) + be32(1) + be32(0xffffffff)), Step::kClose);
}

TEST(NbdHandshake, Hostile03LengthsWithinAnOptionMustAddUp) {
    const std::vector<Bytes> wrong = {
        {},
        be32(4),
        be32(4) + text("disk"),
        be32(4) + text("disk") + be16(1),
        be32(4) + text("disk") + be16(0xffff) + be16(0),
        be32(4) + text("disk") + be16(0) + text("x"),
        be32(3) + text("disk") + be16(0),
    };
    for (const Bytes& data : wrong) {
        for (const Option which : {Option::kInfo, Option::kGo}) {
            Driver driver = greeted();
            EXPECT_EQ(driver.feed(option(which, data)), Step::kNeedBytes);
            ASSERT_EQ(driver.answers()[0].type, OptionReply::kErrInvalid);
        }
    }
    const std::vector<Bytes> wrong_contexts = {
        {},
        be32(0xffffffff),
        be32(4) + text("disk"),
        be32(4) + text("disk") + be32(1),
        be32(4) + text("disk") + be32(0xffffffff),
        be32(4) + text("disk") + be32(1) + be32(0xffffffff) + text("base:allocation"),
        be32(4) + text("disk") + be32(0) + text("x"),
    };
    for (const Bytes& data : wrong_contexts) {
        for (const Option which : {Option::kListMetaContext, Option::kSetMetaContext}) {
            Driver driver = greeted();
            driver.feed(option(Option::kStructuredReply));
            driver.answers();
            EXPECT_EQ(driver.feed(option(which, data)), Step::kNeedBytes);
            ASSERT_EQ(driver.answers()[0].type, OptionReply::kErrInvalid);
        }
    }
}

TEST(NbdHandshake, Hostile04NamesOf4096BytesAreTakenAndLongerOnesRefused) {
    const std::string longest(4096, 'n');
    const std::string too_long(4097, 'n');
    Driver driver = greeted();
    driver.feed(option(Option::kGo, info_data(longest)));
    EXPECT_EQ(driver.answers()[0].type, OptionReply::kErrUnknown);
    driver.feed(option(Option::kGo, info_data(too_long)));
    EXPECT_EQ(driver.answers()[0].type, OptionReply::kErrTooBig);
    driver.feed(option(Option::kStructuredReply) +
                option(Option::kSetMetaContext, context_data(too_long, {})));
    EXPECT_EQ(driver.answers()[1].type, OptionReply::kErrTooBig);
    EXPECT_EQ(driver.feed(option(Option::kExportName, text(too_long))), Step::kClose);
    EXPECT_EQ(driver.opens, 1U) << "the longest name alone was looked up";
}

TEST(NbdHandshake, Hostile05ALongNameIsEchoedShortened) {
    Driver driver = greeted();
    driver.feed(option(Option::kGo, info_data(std::string(4096, 'n'))));
    const auto answers = driver.answers();
    ASSERT_EQ(answers[0].type, OptionReply::kErrUnknown);
    EXPECT_LT(answers[0].data.size(), 128U);
}

TEST(NbdHandshake, Hostile06OptionsAreLimitedInSizeAndNumber) {
    Driver exact = greeted();
    EXPECT_EQ(exact.feed(option(Option(77), Bytes(Handshake::kMaxOptionBytes))), Step::kNeedBytes);
    EXPECT_EQ(exact.answers()[0].type, OptionReply::kErrUnsupported);
    Driver large = greeted();
    // Refused by its header alone: not one byte of the data is waited for.
    EXPECT_EQ(large.feed(be64(kOptionMagic) + be32(77) + be32(Handshake::kMaxOptionBytes + 1)),
              Step::kClose);
    Driver many = greeted();
    Step step = Step::kNeedBytes;
    unsigned taken = 0;
    while (step == Step::kNeedBytes && taken < 1000) {
        step = many.feed(option(Option(77)));
        ++taken;
    }
    EXPECT_EQ(step, Step::kClose);
    EXPECT_EQ(taken, Handshake::kMaxOptions + 1);
    Driver heavy = greeted();
    std::size_t bytes = 0;
    step = Step::kNeedBytes;
    while (step == Step::kNeedBytes && bytes < 10 * kMiB) {
        step = heavy.feed(option(Option(77), Bytes(60000)));
        bytes += 60016;
    }
    EXPECT_EQ(step, Step::kClose);
    EXPECT_LE(bytes, Handshake::kMaxTotalBytes + 60016);
}

TEST(NbdHandshake, Hostile11AWrongMagicEndsTheConnectionAtOnce) {
    Driver driver = greeted();
    EXPECT_EQ(driver.feed(be64(0x4141414141414141)), Step::kClose)
        << "eight bytes are enough to see it";
    Driver whole = greeted();
    EXPECT_EQ(whole.feed(be64(kOptionReplyMagic) + be32(3) + be32(0)), Step::kClose);
}

TEST(NbdHandshake, ListTakesNoDataAndUnknownOptionsAreUnsupported) {
    Driver driver = greeted();
    driver.feed(option(Option::kList, text("x")) + option(Option::kStructuredReply, text("x")) +
                option(Option(4)) + option(Option(11)) + option(Option(0)));
    const auto answers = driver.answers();
    ASSERT_EQ(answers.size(), 5U);
    EXPECT_EQ(answers[0].type, OptionReply::kErrInvalid);
    EXPECT_EQ(answers[1].type, OptionReply::kErrInvalid);
    for (std::size_t i = 2; i < 5; ++i) EXPECT_EQ(answers[i].type, OptionReply::kErrUnsupported);
    EXPECT_FALSE(driver.handshake.negotiated().structured_replies);
}

TEST(NbdHandshake, ARefusedOpenIsAnErrorReplyAndTheClientMayGoOn) {
    const std::vector<std::pair<Errc, OptionReply>> cases = {
        {Errc::kNotFound, OptionReply::kErrUnknown},
        {Errc::kBusy, OptionReply::kErrPolicy},
        {Errc::kNotPermitted, OptionReply::kErrPolicy},
        {Errc::kCancelled, OptionReply::kErrShutdown}};
    for (const auto& [code, type] : cases) {
        Handshake handshake;
        handshake.output().clear();
        const Bytes input = be32(kFixedNewstyle) + option(Option::kGo, info_data("disk"));
        std::size_t used = 0;
        ASSERT_EQ(handshake.next(input, used), Step::kAsk);
        handshake.answer(Result<ExportInfo>(fail(code, "refused")));
        EXPECT_EQ(OptionReply(load_be<std::uint32_t>(handshake.output().data() + 12)), type);
        EXPECT_EQ(handshake.next({}, used), Step::kNeedBytes);
    }
}

}  // namespace
}  // namespace ublkd::front::nbd::test
