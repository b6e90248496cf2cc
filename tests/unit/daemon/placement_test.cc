// Candidates of a volume's replicas: pools in, pools out.
#include "ublkd/daemon/placement.h"

#include <gtest/gtest.h>

namespace ublkd::daemon {
namespace {

UsablePool pool(std::uint64_t id, std::uint64_t available_bytes, dev_t file_system,
                std::string domain = "") {
    return {PoolId(id), domain.empty() ? std::to_string(id) : std::move(domain), available_bytes,
            file_system};
}

std::vector<std::uint64_t> chosen(const std::vector<UsablePool>& pools, unsigned wanted,
                                  const std::set<std::string>& taken = {}) {
    std::vector<std::uint64_t> ids;
    for (const auto& one : choose_candidates(pools, taken, wanted)) ids.push_back(one.id.value());
    return ids;
}

using Ids = std::vector<std::uint64_t>;

TEST(Placement, TakesThePoolsWithTheMostSpaceAndOneMore) {
    const std::vector pools{pool(1, 400, 1), pool(2, 300, 2), pool(3, 200, 3), pool(4, 100, 4)};
    EXPECT_EQ(chosen(pools, 1), (Ids{1, 2}));
    EXPECT_EQ(chosen(pools, 2), (Ids{1, 2, 3}));
    EXPECT_EQ(chosen(pools, 2, {"1"}), (Ids{2, 3, 4}));
    EXPECT_EQ(chosen(pools, 3, {"1"}), (Ids{2, 3, 4}));
}

TEST(Placement, TakesOnePoolOfADomain) {
    const std::vector pools{pool(1, 400, 1, "a"), pool(2, 300, 2, "a"), pool(3, 200, 3, "b")};
    EXPECT_EQ(chosen(pools, 2), (Ids{1, 3}));
}

TEST(Placement, CountsWhatIsFreeOnAFileSystemOnce) {
    const std::vector pools{pool(1, 400, 1), pool(2, 400, 1), pool(3, 300, 2)};
    EXPECT_EQ(chosen(pools, 1), (Ids{1, 3}));
    EXPECT_EQ(chosen(pools, 2), (Ids{1, 3, 2}));
    const std::vector little{pool(1, 400, 1), pool(2, 400, 1), pool(3, 100, 2)};
    EXPECT_EQ(chosen(little, 2), (Ids{1, 2, 3}));
}

}  // namespace
}  // namespace ublkd::daemon
