// Coroutines that are ready to run, first in first out. A ring that only grows, so that a warm
// reactor allocates nothing.
#pragma once

#include <coroutine>
#include <cstddef>
#include <vector>

namespace ublkd::io {

class ReadyQueue {
  public:
    bool empty() const { return head_ == tail_; }
    std::size_t size() const { return tail_ - head_; }
    void push(std::coroutine_handle<> handle) {
        if (size() == slots_.size()) grow();
        slots_[tail_++ & (slots_.size() - 1)] = handle;
    }
    std::coroutine_handle<> pop() { return slots_[head_++ & (slots_.size() - 1)]; }

  private:
    void grow() {
        std::vector<std::coroutine_handle<>> larger(slots_.size() * 2);
        const std::size_t count = size();
        for (std::size_t i = 0; i < count; ++i)
            larger[i] = slots_[(head_ + i) & (slots_.size() - 1)];
        slots_.swap(larger);
        head_ = 0;
        tail_ = count;
    }

    std::vector<std::coroutine_handle<>> slots_ = std::vector<std::coroutine_handle<>>(256);
    std::size_t head_ = 0;  // both only grow; the place in slots_ is the remainder
    std::size_t tail_ = 0;
};

}  // namespace ublkd::io
