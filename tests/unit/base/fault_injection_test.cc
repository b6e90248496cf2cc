// Fault points: parsing, counting, each action. The crash is seen from outside by a death test.
#include "ublkd/base/fault_injection.h"

#include <cerrno>
#include <csignal>

namespace ublkd {
namespace {

class FaultInjection : public testing::Test {
  protected:
    void TearDown() override { faults::disarm_all(); }
};

TEST_F(FaultInjection, PointsDoNothingUntilArmed) {
    EXPECT_EQ(faults::hit("a.b"), 0);
    EXPECT_FALSE(faults::rule_off("rule.x"));
}

TEST_F(FaultInjection, FailsWithTheErrnoAtTheHitThatWasAskedFor) {
    ASSERT_TRUE(faults::arm("a.b=fail@2;c.d=fail:28"));
    EXPECT_EQ(faults::hit("a.b"), 0);
    EXPECT_EQ(faults::hit("a.b"), EIO);
    EXPECT_EQ(faults::hit("a.b"), 0);
    EXPECT_EQ(faults::hits("a.b"), 3U);
    EXPECT_EQ(faults::hit("c.d"), ENOSPC);
}

TEST_F(FaultInjection, SwitchesARuleOff) {
    ASSERT_TRUE(faults::arm("rule.range_lock=off"));
    EXPECT_TRUE(faults::rule_off("rule.range_lock"));
    EXPECT_FALSE(faults::rule_off("rule.other"));
    faults::disarm_all();
    EXPECT_FALSE(faults::rule_off("rule.range_lock"));
}

TEST_F(FaultInjection, RefusesASpecificationThatItCannotRead) {
    for (const char* bad : {"a", "=fail", "a=explode", "a=fail:x", "a=crash@0", "a=delay:-1"})
        EXPECT_FALSE(faults::arm(bad)) << bad;
    EXPECT_TRUE(faults::arm(""));
}

TEST_F(FaultInjection, CrashIsASigkill) {
    ASSERT_TRUE(faults::arm("here=crash"));
    EXPECT_EXIT(faults::hit("here"), testing::KilledBySignal(SIGKILL), "");
}

}  // namespace
}  // namespace ublkd
