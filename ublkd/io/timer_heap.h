// The timers of one reactor: a binary heap of pointers to them, so that arming one allocates
// nothing once the heap is warm, and a timer that is cancelled leaves at once. Timers of the same
// moment fire in the order they were armed.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace ublkd::io {

using Clock = std::chrono::steady_clock;

struct TimerNode {
    Clock::time_point when{};
    std::uint64_t order = 0;
    std::size_t place = 0;  // index in the heap, plus one; 0: not armed
};

class TimerHeap {
  public:
    bool empty() const { return heap_.empty(); }
    std::size_t size() const { return heap_.size(); }
    TimerNode* first() const { return heap_.front(); }

    void add(TimerNode* node, Clock::time_point when) {
        node->when = when;
        node->order = next_order_++;
        heap_.push_back(node);
        node->place = heap_.size();
        up(heap_.size() - 1);
    }
    void remove(TimerNode* node) {
        const std::size_t hole = node->place - 1;
        node->place = 0;
        TimerNode* const last = heap_.back();
        heap_.pop_back();
        if (hole == heap_.size()) return;
        put(hole, last);
        up(hole);
        down(last->place - 1);
    }

  private:
    static bool before(const TimerNode* a, const TimerNode* b) {
        return a->when != b->when ? a->when < b->when : a->order < b->order;
    }
    void put(std::size_t at, TimerNode* node) {
        heap_[at] = node;
        node->place = at + 1;
    }
    void swap(std::size_t a, std::size_t b) {
        TimerNode* const moved = heap_[a];
        put(a, heap_[b]);
        put(b, moved);
    }
    void up(std::size_t at) {
        while (at > 0 && before(heap_[at], heap_[(at - 1) / 2])) {
            swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
    }
    void down(std::size_t at) {
        for (;;) {
            std::size_t least = at;
            for (const std::size_t child : {2 * at + 1, 2 * at + 2}) {
                if (child < heap_.size() && before(heap_[child], heap_[least])) least = child;
            }
            if (least == at) return;
            swap(at, least);
            at = least;
        }
    }

    std::vector<TimerNode*> heap_;
    std::uint64_t next_order_ = 0;
};

}  // namespace ublkd::io
