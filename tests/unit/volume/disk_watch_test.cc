// Goal: the age of the oldest open request is right for any order of begins and ends. Method: a
// plain list of open requests beside it, random steps.
#include "ublkd/volume/disk_watch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace ublkd::volume {
namespace {

TEST(DiskWatch, TellsTheAgeOfTheOldestOpenRequest) {
    std::mt19937_64 random(7);
    for (int run = 0; run < 200; ++run) {
        DiskWatch watch;
        std::vector<std::pair<std::uint64_t, std::uint64_t>> open;  // our tick, what begin() gave
        std::uint64_t now = 0;
        for (int step = 0; step < 300; ++step) {
            switch (random() % 4) {
                case 0:
                case 1:
                    open.emplace_back(now, watch.begin());
                    break;
                case 2:
                    if (open.empty()) break;
                    std::swap(open[random() % open.size()], open.back());
                    watch.end(open.back().second);
                    open.pop_back();
                    break;
                case 3:
                    watch.advance();
                    ++now;
                    break;
            }
            ASSERT_EQ(watch.open(), open.size());
            std::uint64_t oldest = 0;
            for (const auto& [begun, token] : open) oldest = std::max(oldest, now - begun);
            if (oldest < 16) {
                ASSERT_EQ(watch.oldest_ticks(), oldest);
            } else {
                ASSERT_GE(watch.oldest_ticks(), oldest);
            }
        }
    }
}

TEST(DiskWatch, CountsOnWhileARequestHangs) {
    DiskWatch watch;
    const auto hanging = watch.begin();
    for (std::uint64_t tick = 1; tick < 100; ++tick) {
        watch.advance();
        watch.end(watch.begin());
        ASSERT_EQ(watch.oldest_ticks(), tick);
    }
    watch.end(hanging);
    ASSERT_EQ(watch.oldest_ticks(), 0U);
}

}  // namespace
}  // namespace ublkd::volume
