// Goal: what is written is read again, several files make one history, and what is none is refused
// with its line.
#include "tests/history/history_file.h"

#include <gtest/gtest.h>

namespace ublkd::history {
namespace {

const std::string kHeader = "ublkd-history 1 boot-a\n";

std::string refusal(const std::string& text) {
    const auto parsed = parse_histories({{"f", kHeader + text}});
    return parsed ? "" : parsed.error();
}

TEST(HistoryFile, WhatIsWrittenIsReadAgain) {
    Operation write{.id = {1, 1}, .action = Action::kWrite, .fua = true, .sector = 8, .count = 4};
    write.begin = 100;
    write.end = 200;
    write.outcome = Operation::Outcome::kFailed;
    write.error = 5;
    Operation read{.id = {2, 1}, .action = Action::kRead, .sector = 8, .count = 7};
    read.begin = 150;
    read.end = 250;
    read.outcome = Operation::Outcome::kOk;
    read.seen = {Seen{Seen::What::kStamp, {1, 1}, 0, 3}, Seen{Seen::What::kZeroes, {}, 0, 2},
                 Seen{Seen::What::kTorn, {}, 0, 1}, Seen{Seen::What::kMisplaced, {1, 1}, 77, 1}};
    const Operation flush{.id = {2, 2}, .action = Action::kFlush, .begin = 300};
    const std::string text = kHeader + begin_line(write) + begin_line(read) + end_line(write) +
                             end_line(read) + loss_line({400, 500}) + begin_line(flush);
    const auto parsed = parse_histories({{"f", text}});
    ASSERT_TRUE(parsed.has_value()) << parsed.error();
    ASSERT_EQ(parsed->operations.size(), 3u);
    EXPECT_EQ(begin_line(parsed->operations[0]), begin_line(write));
    EXPECT_EQ(end_line(parsed->operations[0]), end_line(write));
    EXPECT_EQ(begin_line(parsed->operations[1]), begin_line(read));
    EXPECT_EQ(end_line(parsed->operations[1]), end_line(read));
    EXPECT_EQ(parsed->operations[1].seen.size(), 4u);
    EXPECT_EQ(parsed->operations[1].seen[3].address, 77u);
    EXPECT_EQ(parsed->operations[2].outcome, Operation::Outcome::kUnknown);
    ASSERT_EQ(parsed->losses.size(), 1u);
    EXPECT_EQ(parsed->losses[0].end, 500u);
}

TEST(HistoryFile, FilesOfSeveralProcessesMakeOneHistory) {
    const auto parsed = parse_histories(
        {{"a", kHeader + "> 10 1.1 write 0+1\n< 20 1.1 ok\n! loss 60 70\n"},
         {"b", kHeader + "# a comment\n> 30 2.1 read 0+1\n< 40 2.1 ok 1.1*1\n! loss 1 5\n"}});
    ASSERT_TRUE(parsed.has_value()) << parsed.error();
    EXPECT_EQ(parsed->operations.size(), 2u);
    ASSERT_EQ(parsed->losses.size(), 2u);
    EXPECT_EQ(parsed->losses[0].begin, 1u);
}

TEST(HistoryFile, LineThatADeathCutInHalfIsLeftOut) {
    const auto parsed = parse_histories({{"f", kHeader + "> 10 1.1 write 0+1\n< 20 1.1 o"}});
    ASSERT_TRUE(parsed.has_value()) << parsed.error();
    EXPECT_EQ(parsed->operations[0].outcome, Operation::Outcome::kUnknown);
}

TEST(HistoryFile, WhatIsNoHistoryIsRefusedWithItsLine) {
    EXPECT_EQ(refusal("> 10 1.1 write 0+1\n> 11 1.1 read 0+1\n"),
              "f:3: this operation began already");
    EXPECT_EQ(refusal("< 10 1.1 ok\n"), "f:2: the end of an operation that did not begin");
    EXPECT_EQ(refusal("> 10 1.1 flush\n< 9 1.1 ok\n"), "f:3: it ends before it began");
    EXPECT_EQ(refusal("> 10 1.1 flush\n< 12 1.1 ok\n< 13 1.1 ok\n"), "f:4: it ended already");
    EXPECT_EQ(refusal("> 10 1.1 read 0+2\n< 12 1.1 ok 0*1\n"),
              "f:3: it saw another number of sectors than it has");
    EXPECT_EQ(refusal("> 10 1.1 erase 0+2\n"), "f:2: unknown operation");
    EXPECT_EQ(refusal("> 10 1.1 read 0+0\n"), "f:2: not a range");
    EXPECT_EQ(refusal("> 10 1.1 write 0+1 fua 2\n"), "f:2: too many words");
    EXPECT_EQ(refusal("> 10 1.1 read 0+1\n< 12 1.1 ok 1.x*1\n"), "f:3: not what a read saw");
    EXPECT_EQ(refusal("hello\n"), "f:2: not an event");
    EXPECT_EQ(refusal("! loss 10 11\n"), "f:2: a loss has to end after it began");
    EXPECT_EQ(refusal("! loss 10 20\n! loss 15 30\n"), "f:3: losses overlap");
    EXPECT_EQ(parse_histories({{"f", "ublkd-history 2 x\n"}}).error(),
              "f:1: not a history of version 1");
    EXPECT_EQ(parse_histories({{"f", kHeader}, {"g", "ublkd-history 1 boot-b\n"}}).error(),
              "g:1: of another boot than the others: their times cannot be compared");
}

}  // namespace
}  // namespace ublkd::history
