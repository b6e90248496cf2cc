// Goal: a whole history is judged sector by sector, and the report names the two operations that
// contradict each other so that a person finds them. Method: histories as their files' text.
#include "tests/history/check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/history/history_file.h"

namespace ublkd::history {
namespace {

using testing::HasSubstr;

/// The report of a history, "" where it is possible. Times are given in milliseconds here.
std::string report_of(const std::string& lines) {
    std::string text = "ublkd-history 1 boot\n";
    bool first_number = false;
    std::string word;
    for (const char c : lines) {  // "> 5 …" becomes "> 5000000 …"
        text += c;
        if (c == '>' || c == '<') first_number = true;
        if (first_number && c >= '0' && c <= '9') word += c;
        if (first_number && c == ' ' && !word.empty()) {
            text.insert(text.size() - 1, "000000");
            first_number = false;
            word.clear();
        }
    }
    const auto history = parse_histories({{"f", text}});
    EXPECT_TRUE(history.has_value()) << history.error();
    return report(*history, judge(*history));
}

TEST(HistoryCheck, PossibleHistoryHasNoFindings) {
    EXPECT_EQ(report_of("> 0 1.1 write 0+8\n< 10 1.1 ok\n"
                        "> 5 2.1 write 4+8 fua\n< 15 2.1 ok\n"
                        "> 20 1.2 read 0+12\n< 30 1.2 ok 1.1*6 2.1*6\n"
                        "> 40 1.3 discard 0+6\n"
                        "> 50 2.2 read 0+6\n< 60 2.2 ok 1.1*3 0*3\n"),
              "");
}

TEST(HistoryCheck, StaleReadIsToldWithBothOperationsAndTheirTimes) {
    EXPECT_EQ(report_of("> 0 1.1 write 0+8\n< 10 1.1 ok\n"
                        "> 20 2.7 write 4+4 fua\n< 30 2.7 ok\n"
                        "> 40 3.1 read 0+8\n< 50 3.1 ok 1.1*6 2.7*2\n"),
              "sectors 4 to 5: read 3.1 of sectors 0 to 7 (from 0.040000 to 0.050000 s) found the "
              "data of write 1.1,\n"
              "  though write 2.7 of sectors 4 to 7 with FUA (from 0.020000 to 0.030000 s) ended "
              "before it began\n"
              "  the data of write 1.1 is older: write 1.1 of sectors 0 to 7 (from 0.000000 to "
              "0.010000 s) ended before the former began\n");
}

TEST(HistoryCheck, LostWriteIsToldWithTheReadThatMissedIt) {
    const std::string text =
        report_of("> 0 1.1 write 0+8\n< 10 1.1 ok\n> 20 2.1 read 0+1\n< 30 2.1 ok 0*1\n");
    EXPECT_THAT(text, HasSubstr("sector 0: read 2.1"));
    EXPECT_THAT(text, HasSubstr("found zeroes,\n  after write 1.1"));
}

TEST(HistoryCheck, TornMisplacedAndForeignSectorsAreTold) {
    EXPECT_THAT(report_of("> 20 2.1 read 5+1\n< 30 2.1 ok torn*1\n"), HasSubstr("torn"));
    EXPECT_THAT(report_of("> 0 1.1 write 0+8\n< 10 1.1 ok\n"
                          "> 20 2.1 read 5+1\n< 30 2.1 ok 1.1@6*1\n"),
                HasSubstr("sector 5: read 2.1 of sectors 5 to 5 (from 0.020000 to 0.030000 s) "
                          "found the data of write 1.1 for sector 6"));
    EXPECT_THAT(report_of("> 20 2.1 read 5+1\n< 30 2.1 ok 9.9*1\n"),
                HasSubstr("9.9, which is not in the history"));
    // The write is there, but not of this sector.
    EXPECT_THAT(report_of("> 0 1.1 write 0+2\n< 10 1.1 ok\n"
                          "> 20 2.1 read 5+1\n< 30 2.1 ok 1.1*1\n"),
                HasSubstr("did not write this sector"));
}

TEST(HistoryCheck, WriteThatFailedMayHaveHappenedOrNot) {
    const std::string failed = "> 0 1.1 write 0+2\n< 10 1.1 failed 5\n";
    EXPECT_EQ(report_of(failed + "> 20 2.1 read 0+2\n< 30 2.1 ok 1.1*1 0*1\n"), "");
    EXPECT_THAT(report_of(failed + "> 20 2.1 read 0+1\n< 30 2.1 ok 1.1*1\n"
                                   "> 40 2.2 read 0+1\n< 50 2.2 ok 0*1\n"),
                HasSubstr("read 2.2"));
}

TEST(HistoryCheck, FlushedWriteThatAPowerCutLostIsToldWithItsFlush) {
    const std::string before = "> 0 1.1 write 0+1\n< 10 1.1 ok\n> 20 1.2 write 0+1\n< 30 1.2 ok\n";
    const std::string flush = "> 40 2.1 flush\n< 50 2.1 ok\n";
    const std::string after = "! loss 60000000 70000000\n> 80 1.3 read 0+1\n< 90 1.3 ok 1.1*1\n";
    EXPECT_EQ(report_of(before + after), "");
    const std::string text = report_of(before + flush + after);
    EXPECT_THAT(text, HasSubstr("read 1.3"));
    EXPECT_THAT(text, HasSubstr("after a loss event,\n  though write 1.2"));
    EXPECT_THAT(text, HasSubstr("it was durable by flush 2.1"));
}

TEST(HistoryCheck, FlushOfAnotherClientMakesDurableToo) {
    EXPECT_NE(report_of("> 0 1.1 write 0+1\n< 10 1.1 ok\n> 11 2.1 flush\n< 12 2.1 ok\n"
                        "! loss 60000000 70000000\n> 80 3.1 read 0+1\n< 90 3.1 ok 0*1\n"),
              "");
}

}  // namespace
}  // namespace ublkd::history
