// Goal: R8 over take-overs and restarts: a change that a client sends again is applied once, and
// never over what was answered after it had been interrupted, wherever its data had come. Method:
// two nodes, or one; an earlier process left the change on one of them, or in its disk alone;
// another client's change is served before the retry. Each once with its rule off.
#include <gtest/gtest.h>

#include "tests/unit/replication/node_pair.h"

namespace ublkd::replication {
namespace {

constexpr std::byte kOld{0};
constexpr std::byte kRetried{1};       // what the client with the open request wrote
constexpr std::byte kLaterContent{2};  // what another client wrote after it had read that
constexpr RequestId kChange{5, 1};
constexpr Range kRange{0, 4096};

void applied_on(Fake& fake) {
    std::fill_n(fake.content.begin(), kRange.length_bytes, kRetried);
    fake.ids.note_applied(kChange, kRange);
    fake.active = {0};
}

Message change(const RequestId& id, std::uint64_t replica, std::uint64_t number, Range range,
               std::vector<std::byte>& payload, std::byte value) {
    payload.assign(range.length_bytes, value);
    Message message = Pair::request(OpKind::kWrite, replica, number, payload);
    message.id = id;
    message.range = range;
    return message;
}

/// Another client's change is served, and then the one that is sent again.
void later_change_and_retry(Pair& pair, Fake& primary, std::uint64_t replica, Range later) {
    std::vector<std::byte> first, second;
    const std::uint64_t number = primary.node.number();
    primary.node.on_message(change({6, 1}, replica, number, later, first, kLaterContent));
    pair.exchange();
    primary.node.on_message(change(kChange, replica, number, kRange, second, kRetried));
    pair.exchange();
    ASSERT_EQ(pair.to_client.size(), 2U);
    for (const Message& answer : pair.to_client) EXPECT_EQ(answer.type, MessageType::kAnswer);
}

/// The change is on the primary alone, is copied to the other one, and that takes over.
TEST(NodeRetry, R8_ChangeThatCameByACopyIsNotAppliedOverALaterOne) {
    Pair pair([](Pair& left) { applied_on(left.first); });
    pair.exchange();
    ASSERT_EQ(pair.first.node.regions_to_copy(), 0U);
    ASSERT_EQ(pair.second.content[0], kRetried);
    pair.replace_first();
    later_change_and_retry(pair, pair.second, 2, {0, 512});
    EXPECT_EQ(pair.second.content[0], kLaterContent);
    EXPECT_EQ(pair.second.content[512], kRetried);
}

/// The change and a later one over it came to a joining replica by its copies, which then takes
/// over.
TEST(NodeRetry, R8_ChangeOfBeforeAJoinIsNotAppliedAgainByWhoJoined) {
    Joining pair([](Joining& left) {
        std::fill_n(left.first.content.begin(), kRange.length_bytes, kLaterContent);
        left.first.ids.note_applied(kChange, kRange);
    });
    EXPECT_TRUE(pair.second.ids.applied(kChange));
}

/// The change is on the other one alone, and the primary's content is copied over it: an id that
/// still counted as applied would have the retry answered though the change is nowhere.
TEST(NodeRetry, R8_ChangeThatWasCopiedOverIsAppliedAgain) {
    for (const bool rule : {true, false}) {
        Pair pair([](Pair& left) { applied_on(left.second); });
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.ids_agree=off"));
        }
        pair.exchange();
        ASSERT_EQ(pair.first.node.role(), Role::kServing);
        ASSERT_EQ(pair.second.content[0], kOld);
        pair.replace_first();
        later_change_and_retry(pair, pair.second, 2, {0, 512});
        EXPECT_EQ(pair.second.content[0], kLaterContent);
        EXPECT_EQ(pair.second.content[512], rule ? kRetried : kOld);
    }
}

/// The change is on the other one alone, and the primary's disk fails before it was copied over:
/// the other one takes over with the change in its content.
TEST(NodeRetry, R8_ChangeThatWasNotCopiedOverYetIsNotAppliedOverALaterOne) {
    Pair pair([](Pair& left) { applied_on(left.second); });
    pair.first.read_error = pair.first.write_error = Error{Errc::kIo};
    pair.exchange();
    ASSERT_EQ(pair.second.content[0], kRetried);
    ASSERT_EQ(pair.first.proposals.size(), 1U);
    const Membership next = pair.first.proposals[0].next;
    ASSERT_EQ(next.primary, ReplicaId(2));
    pair.first.node.on_outcome(Verdict::kAuthorized, &next);
    pair.exchange();
    ASSERT_EQ(pair.second.node.role(), Role::kServing);
    later_change_and_retry(pair, pair.second, 2, {1024, 1024});
    EXPECT_EQ(pair.second.content[0], kRetried);
    EXPECT_EQ(pair.second.content[1024], kLaterContent);
    EXPECT_EQ(pair.second.content[2048], kRetried);
}

/// The change was interrupted, and so was a later one, which the primary's disk alone has: there
/// nothing is left to be written of the first one where the second one lies.
void overwritten_on_the_first(Pair& left) {
    constexpr RequestId kSecond{6, 9};
    constexpr Range kOver{1024, 1024};
    for (Fake* const fake : {&left.first, &left.second})
        fake->ids.note_perhaps(kChange, kRange, kRange);
    left.first.ids.take_stock();
    left.first.ids.note_perhaps(kSecond, kOver, kOver);
    std::fill_n(left.first.content.begin() + kOver.offset_bytes, kOver.length_bytes, kLaterContent);
    left.first.ids.overwritten(kOver, kSecond);
    left.first.ids.note_applied(kSecond, kOver);
    left.first.active = {0};
}

/// The primary's disk fails before its content was copied: on the other one the change is retried
/// whole, since nothing was written over it there.
TEST(NodeRetry, R8_WhatWasWrittenOverElsewhereIsWrittenWhereItWasNot) {
    Pair pair(overwritten_on_the_first);
    pair.first.read_error = pair.first.write_error = Error{Errc::kIo};
    pair.exchange();
    ASSERT_EQ(pair.first.proposals.size(), 1U);
    const Membership next = pair.first.proposals[0].next;
    pair.first.node.on_outcome(Verdict::kAuthorized, &next);
    pair.exchange();
    ASSERT_EQ(pair.second.node.role(), Role::kServing);
    std::vector<std::byte> payload;
    pair.second.node.on_message(change(kChange, 2, 2, kRange, payload, kRetried));
    pair.exchange();
    ASSERT_EQ(pair.to_client.size(), 1U);
    for (const std::size_t at : {0U, 1024U, 2048U})
        EXPECT_EQ(pair.second.content[at], kRetried) << at;
}

/// It was copied, and may have been read there since: the retry leaves it.
TEST(NodeRetry, R8_WhatWasWrittenOverElsewhereStaysWhereItWasCopied) {
    for (const bool rule : {true, false}) {
        Pair pair(overwritten_on_the_first);
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.ids_agree=off"));
        }
        pair.exchange();
        ASSERT_EQ(pair.second.content[1024], kLaterContent);
        pair.replace_first();
        std::vector<std::byte> payload;
        pair.second.node.on_message(change(kChange, 2, 2, kRange, payload, kRetried));
        pair.exchange();
        ASSERT_EQ(pair.to_client.size(), 1U);
        EXPECT_EQ(pair.second.content[0], kRetried);
        EXPECT_EQ(pair.second.content[1024], rule ? kLaterContent : kRetried);
        EXPECT_EQ(pair.second.content[2048], kRetried);
    }
}

/// Both changes are on the primary's disk, the second one over the first one; the other member
/// knows the first one as perhaps applied. The second one comes again: the other member is only
/// told.
TEST(NodeRetry, R8_WhoIsToldOfAChangeKeepsNothingOfWhatItWroteOver) {
    for (const bool rule : {true, false}) {
        Pair pair([](Pair& left) {
            for (Fake* const fake : {&left.first, &left.second})
                std::fill_n(fake->content.begin(), kRange.length_bytes, kRetried);
            std::fill_n(left.first.content.begin(), kRange.length_bytes, kLaterContent);
            left.first.ids.note_applied(kChange, kRange);
            left.first.ids.note_applied({6, 1}, kRange);
            left.second.ids.note_perhaps(kChange, kRange, kRange);
            left.first.active = {0};
        });
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.ids_agree=off"));
        }
        pair.exchange();
        std::vector<std::byte> payload;
        pair.first.node.on_message(change({6, 1}, 1, 1, kRange, payload, kLaterContent));
        pair.exchange();
        pair.replace_first();
        pair.second.node.on_message(change(kChange, 2, 2, kRange, payload, kRetried));
        pair.exchange();
        ASSERT_EQ(pair.to_client.size(), 2U);
        EXPECT_EQ(pair.second.content[0], rule ? kLaterContent : kRetried);
    }
}

/// A full pool made the change fail, on the primary's disk or the other one's, and the answer was
/// lost. It comes again after a later one: all still know that a part of it may have been there.
TEST(NodeRetry, R8_ChangeThatAFullPoolMadeFailIsNotAppliedOverALaterOne) {
    for (const bool own : {true, false}) {
        Pair pair;
        pair.first.node.set_wait_on_full(false);
        Fake& full = own ? pair.first : pair.second;
        full.write_error = Error{Errc::kNoSpace};
        std::vector<std::byte> payload;
        pair.first.node.on_message(change(kChange, 1, 1, kRange, payload, kRetried));
        pair.exchange();
        ASSERT_EQ(pair.to_client.size(), 1U);
        ASSERT_TRUE(pair.to_client[0].failed);
        full.write_error.reset();
        pair.to_client.clear();
        later_change_and_retry(pair, pair.first, 1, kRange);
        for (const Fake* const fake : {&pair.first, &pair.second})
            EXPECT_EQ(fake->content[0], kLaterContent);
    }
}

/// The process dies when the disk has the change and before it was told so: the next one finds it
/// noted as perhaps applied. Its retry writes what no later change has overwritten, on all members.
TEST(NodeRetry, R8_ChangeThatWasUnderWayIsNotAppliedOverALaterOne) {
    for (const bool rule : {true, false}) {
        Pair dying;
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.noted_first=off"));
        }
        std::vector<std::byte> payload;
        dying.first.node.on_message(change(kChange, 1, 1, kRange, payload, kRetried));
        for (const auto& [token, bytes] : std::exchange(dying.first.buffers, {}))
            dying.first.node.on_buffer(token, {.bytes = *bytes, .handle = 0});
        ASSERT_EQ(dying.first.disks.size(), 1U);
        ASSERT_TRUE(dying.first.carry_out(dying.first.disks[0]));

        static Pair* last = nullptr;
        last = &dying;
        Pair pair([](Pair& left) {
            left.first.inherit(last->first);
            left.second.inherit(last->second);
            left.first.active = {0};
        });
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.noted_first=off"));
        }
        pair.exchange();
        ASSERT_EQ(pair.second.content[0], kRetried);
        later_change_and_retry(pair, pair.first, 1, {1024, 1024});
        for (const Fake* const fake : {&pair.first, &pair.second}) {
            EXPECT_EQ(fake->content[0], kRetried);
            EXPECT_EQ(fake->content[1024], rule ? kLaterContent : kRetried);
            EXPECT_EQ(fake->content[2048], kRetried);
            EXPECT_TRUE(fake->ids.applied(kChange));
        }
    }
}

}  // namespace
}  // namespace ublkd::replication
