// Goal: R18, step by step: what a cut waits for, what waits for it, and when it does not count.
// Method: two nodes over effects that are written down.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/replication/node_pair.h"

namespace ublkd::replication {
namespace {

constexpr std::uint64_t kCut = 9;
constexpr std::uint64_t kCutToken = 500;

struct Cutting : Pair {
    using Pair::Pair;

    void ask(OpKind kind, std::uint64_t cut = kCut, std::uint64_t token = kCutToken) {
        Message message = request(kind, 1, first.node.number(), {});
        message.id = {};
        message.cut = cut;
        message.token = token;
        message.value = hold_ms;
        message.attachment = attachment;
        first.node.on_message(message);
    }
    void release(std::uint64_t cut = kCut) {
        Message message = request(OpKind::kCut, 1, first.node.number(), {});
        message.type = MessageType::kRelease;
        message.cut = cut;
        message.token = kCutToken;
        first.node.on_message(message);
        exchange();
    }
    void write(std::uint64_t sequence = 1) {
        Message message = request(OpKind::kWrite, 1, first.node.number(), memory);
        message.token = sequence;
        message.id = {5, sequence};
        first.node.on_message(message);
    }
    /// The answer to the request `token`, if there is one, and takes it away.
    std::optional<Message> answer(std::uint64_t token) {
        const auto found =
            std::find_if(to_client.begin(), to_client.end(), [&](const Message& message) {
                return message.type == MessageType::kAnswer && message.token == token;
            });
        if (found == to_client.end()) return std::nullopt;
        const Message message = *found;
        to_client.erase(found);
        return message;
    }
    bool succeeded(std::uint64_t token) {
        const std::optional<Message> given = answer(token);
        return given && !given->failed;
    }
    std::uint32_t hold_ms = 1000;
    AttachmentId attachment;
    Errc error(std::uint64_t token) {
        const std::optional<Message> given = answer(token);
        EXPECT_TRUE(given && given->failed);
        return given ? given->error.code : Errc::kIo;
    }
};

TEST(NodeCut, R18_HasWhatWasUnderWayAndNothingThatCameLater) {
    Cutting pair;
    pair.memory.fill(std::byte{1});
    pair.write(1);  // its buffer is not there yet
    pair.ask(OpKind::kCut);
    EXPECT_TRUE(std::none_of(pair.first.disks.begin(), pair.first.disks.end(),
                             [](const DiskRequest& r) { return r.kind == OpKind::kCut; }));
    pair.write(2);
    pair.exchange();
    EXPECT_TRUE(pair.succeeded(1));
    EXPECT_TRUE(pair.succeeded(kCutToken));
    EXPECT_FALSE(pair.answer(2)) << "a change waits until the cut is released";
    for (Fake* const member : {&pair.first, &pair.second})
        EXPECT_EQ(member->cuts.at(kCut).front(), std::byte{1});

    pair.ask(OpKind::kCutHolds, kCut, 501);
    pair.exchange();
    EXPECT_TRUE(pair.succeeded(501));
    pair.release();
    EXPECT_TRUE(pair.succeeded(2));
    pair.ask(OpKind::kCutHolds, kCut, 502);
    pair.exchange();
    EXPECT_EQ(pair.error(502), Errc::kStale);
}

TEST(NodeCut, R18_ReadsAndFlushesGoOn) {
    Cutting pair;
    pair.ask(OpKind::kCut);
    pair.exchange();
    std::array<std::byte, 4096> into{};
    Message read = Pair::request(OpKind::kRead, 1, 1, into);
    read.token = 10;
    pair.first.node.on_message(read);
    Message flush = Pair::request(OpKind::kFlush, 1, 1, {});
    flush.token = 11;
    pair.first.node.on_message(flush);
    pair.exchange();
    EXPECT_TRUE(pair.succeeded(10));
    EXPECT_TRUE(pair.succeeded(11));
}

TEST(NodeCut, R18_ChangesWaitNoLongerThanWasAskedFor) {
    Cutting pair;
    pair.ask(OpKind::kCut);
    pair.exchange();
    EXPECT_TRUE(pair.succeeded(kCutToken));
    pair.write(1);
    pair.exchange();
    EXPECT_FALSE(pair.answer(1));
    pair.first.node.on_timer(TimerKind::kCut);
    pair.exchange();
    EXPECT_TRUE(pair.succeeded(1));
    pair.ask(OpKind::kCutHolds, kCut, 501);
    pair.exchange();
    EXPECT_EQ(pair.error(501), Errc::kStale);
}

TEST(NodeCut, R18_EachHasItsOwnTime) {
    Cutting pair;
    pair.ask(OpKind::kCut);
    pair.exchange();
    EXPECT_EQ(pair.first.timers.at(TimerKind::kCut), 1000U);
    pair.release();
    pair.hold_ms = 300;
    pair.ask(OpKind::kCut, kCut + 1);
    pair.exchange();
    EXPECT_EQ(pair.first.timers.at(TimerKind::kCut), 300U);
}

/// It was sent to the members, and comes back under a number in which its asker is not attached.
TEST(NodeCut, R15_HoldsNothingForWhoWasTakenOff) {
    Membership record = record_of(1, 1);
    record.attachments = {AttachmentId(3)};
    Cutting pair(record);
    pair.attachment = AttachmentId(3);
    pair.ask(OpKind::kCut);
    pair.first.complete();
    ASSERT_TRUE(pair.first.node.set_attachments({}));
    pair.first.complete();
    ASSERT_EQ(pair.first.proposals.size(), 1U);
    const Membership next = pair.first.proposals[0].next;
    pair.first.node.on_outcome(Verdict::kAuthorized, &next);
    pair.exchange();
    EXPECT_EQ(pair.error(kCutToken), Errc::kNotPermitted);
    EXPECT_TRUE(pair.first.node.fenced(AttachmentId(3)));
    pair.attachment = {};
    pair.write(1);
    pair.exchange();
    EXPECT_TRUE(pair.succeeded(1));
}

TEST(NodeCut, R18_WhatDoesNotEndInTimeEndsTheCut) {
    Cutting pair;
    pair.write(1);
    pair.first.complete();
    pair.first.sent.clear();  // the other member never hears of it
    pair.ask(OpKind::kCut);
    pair.write(2);
    pair.exchange();
    EXPECT_FALSE(pair.answer(kCutToken));
    pair.first.node.on_timer(TimerKind::kCut);
    pair.exchange();
    EXPECT_EQ(pair.error(kCutToken), Errc::kTimedOut);
    EXPECT_FALSE(pair.answer(2)) << "its range is locked by the first";
    pair.first.node.on_peer_lost(ReplicaId(2), Error{Errc::kIo, 0, "test"});
    pair.exchange();
    ASSERT_EQ(pair.first.proposals.size(), 1U);
    const Membership next = pair.first.proposals[0].next;
    pair.first.node.on_outcome(Verdict::kAuthorized, &next);
    pair.exchange();
    EXPECT_TRUE(pair.succeeded(1));
    EXPECT_TRUE(pair.succeeded(2));
}

TEST(NodeCut, R18_OneAtATime) {
    Cutting pair;
    pair.ask(OpKind::kCut);
    pair.exchange();
    EXPECT_TRUE(pair.succeeded(kCutToken));
    pair.ask(OpKind::kCut, kCut + 1, 501);
    pair.exchange();
    EXPECT_EQ(pair.error(501), Errc::kBusy);
    // The same one again, since its asker lost the answer.
    pair.ask(OpKind::kCut, kCut, 502);
    pair.exchange();
    EXPECT_TRUE(pair.succeeded(502));
}

TEST(NodeCut, R18_MemberThatCannotPreserveLeavesNot) {
    Cutting pair;
    pair.second.cut_error = Error{Errc::kNoSpace, 0, "test"};
    pair.ask(OpKind::kCut);
    pair.write(1);
    pair.exchange();
    EXPECT_EQ(pair.error(kCutToken), Errc::kNoSpace);
    EXPECT_TRUE(pair.succeeded(1));
    EXPECT_TRUE(pair.first.proposals.empty());
    EXPECT_TRUE(pair.first.lost.empty());
}

TEST(NodeCut, R18_NextOneWaitsForADiskThatIsStillAtOneThatFailed) {
    Cutting pair;
    pair.second.cut_error = Error{Errc::kIo, 0, "test"};
    pair.ask(OpKind::kCut);
    const std::vector<DiskRequest> slow = std::exchange(pair.first.disks, {});
    ASSERT_EQ(slow.size(), 1U);
    pair.exchange();
    EXPECT_EQ(pair.error(kCutToken), Errc::kIo);
    pair.second.cut_error.reset();
    pair.ask(OpKind::kCut, kCut, 501);
    pair.exchange();
    EXPECT_FALSE(pair.answer(501)) << "the first request could still preserve what comes later";
    pair.first.node.on_disk(slow.front().token, {});
    pair.exchange();
    EXPECT_TRUE(pair.succeeded(501));
}

/// Found by the simulation (hosts_snapshots 5485): the first request stayed for ever.
TEST(NodeCut, R18_MemberThatRefusedACutThatFailedOwesNothing) {
    Joining pair;
    Message cut = Pair::request(OpKind::kCut, 1, 1, {});
    cut.cut = kCut;
    pair.first.node.on_message(cut);
    pair.first.complete();
    ASSERT_FALSE(pair.first.sent.empty()) << "who is proposed is to have it";
    pair.first.node.on_timer(TimerKind::kCut);
    Message refused = pair.first.sent.front();
    pair.first.sent.clear();
    std::swap(refused.from, refused.to);
    refused.type = MessageType::kReplicated;
    refused.failed = true;
    refused.error = Error{Errc::kStale, 0, "older number"};
    pair.first.node.on_message(refused);
    EXPECT_EQ(pair.first.node.open_ops(), 0U);
}

/// A cut is no content: who has not got it lacks nothing.
TEST(NodeCut, R18_PutsNobodyOutThatCannotPreserve) {
    Cutting pair;
    for (Fake* const member : {&pair.first, &pair.second})
        member->cut_error = Error{Errc::kUnsupported};
    pair.ask(OpKind::kCut);
    pair.first.complete();  // the own disk is the first to say so
    pair.exchange();
    EXPECT_EQ(pair.error(kCutToken), Errc::kUnsupported);
    EXPECT_TRUE(pair.first.lost.empty());
    EXPECT_TRUE(pair.first.proposals.empty());
}

TEST(NodeCut, R18_OfAnotherAskerIsRefusedAndOneThatIsAskedForAgainIsAnsweredOnce) {
    Cutting pair;
    pair.write(1);  // its buffer is not there yet: the cut waits
    pair.ask(OpKind::kCut, kCut, 501);
    Message other = Cutting::request(OpKind::kCut, 1, pair.first.node.number(), {});
    other.id = {};
    other.cut = kCut;
    other.token = 502;
    other.value = 1000;
    other.attachment = AttachmentId(3);
    pair.first.node.on_message(other);
    pair.ask(OpKind::kCut, kCut, 503);
    pair.exchange();
    EXPECT_TRUE(pair.answer(502)->failed);
    EXPECT_EQ(pair.error(501), Errc::kCancelled);
    EXPECT_TRUE(pair.succeeded(503));
}

TEST(NodeCut, R18_HoldsUnderItsOwnNumberAlone) {
    Cutting pair;
    pair.ask(OpKind::kCut);
    pair.exchange();
    EXPECT_TRUE(pair.succeeded(kCutToken));
    pair.first.node.on_peer_lost(ReplicaId(2), Error{Errc::kIo, 0, "test"});
    pair.exchange();
    const Membership next = pair.first.proposals.at(0).next;
    pair.first.node.on_outcome(Verdict::kAuthorized, &next);
    pair.exchange();
    pair.ask(OpKind::kCutHolds, kCut, 501);
    pair.exchange();
    EXPECT_EQ(pair.error(501), Errc::kStale);
}

/// Found by the simulation (hosts_snapshots 1411).
TEST(NodeCut, R18_AskedForAgainUnderAnotherNumberIsMadeAgain) {
    Cutting pair;
    pair.ask(OpKind::kCut);
    pair.exchange();
    EXPECT_TRUE(pair.succeeded(kCutToken));
    pair.first.node.on_peer_lost(ReplicaId(2), Error{Errc::kIo, 0, "test"});
    pair.exchange();
    const Membership next = pair.first.proposals.at(0).next;
    pair.first.node.on_outcome(Verdict::kAuthorized, &next);
    pair.exchange();
    pair.first.cuts.clear();
    pair.ask(OpKind::kCut, kCut, 501);
    pair.exchange();
    EXPECT_TRUE(pair.succeeded(501));
    EXPECT_TRUE(pair.first.cuts.contains(kCut));
    pair.ask(OpKind::kCutHolds, kCut, 502);
    pair.exchange();
    EXPECT_TRUE(pair.succeeded(502));
}

TEST(NodeCut, R18_PrimaryThatWasReplacedSaysNothing) {
    for (const bool off : {false, true}) {
        Cutting pair;
        pair.ask(OpKind::kCut);
        pair.exchange();
        EXPECT_TRUE(pair.succeeded(kCutToken));
        pair.replace_first();
        ASSERT_TRUE(!off || faults::arm("rule.cut_confirmed=off"));
        pair.ask(OpKind::kCutHolds, kCut, 501);
        pair.exchange();
        EXPECT_EQ(pair.succeeded(501), off);
    }
}

}  // namespace
}  // namespace ublkd::replication
