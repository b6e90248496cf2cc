// Goal: the heap gives the earliest timer, whatever was added and removed. Method: a std::set as
// the model.
#include "ublkd/io/timer_heap.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/suites/seed.h"

namespace ublkd::io {
namespace {

TEST(TimerHeap, RandomAddAndRemoveMatchTheModel) {
    suites::Random random(1);
    TimerHeap heap;
    std::vector<TimerNode> nodes(200);
    std::set<std::pair<std::pair<Clock::time_point, std::uint64_t>, TimerNode*>> model;
    const auto key = [](TimerNode* node) {
        return std::pair(std::pair(node->when, node->order), node);
    };
    for (int step = 0; step < 20'000; ++step) {
        TimerNode* node = &nodes[random.between(0, nodes.size() - 1)];
        if (node->place != 0) {
            model.erase(key(node));
            heap.remove(node);
            EXPECT_EQ(node->place, 0U);
        } else {
            heap.add(node, Clock::time_point(Clock::duration(random.between(0, 30))));
            model.insert(key(node));
        }
        ASSERT_EQ(heap.size(), model.size());
        if (!model.empty()) {
            ASSERT_EQ(heap.first(), model.begin()->second) << suites::seed_text();
        }
    }
    while (!model.empty()) {
        ASSERT_EQ(heap.first(), model.begin()->second);
        heap.remove(heap.first());
        model.erase(model.begin());
    }
    EXPECT_TRUE(heap.empty());
}

}  // namespace
}  // namespace ublkd::io
