#include "tests/history/brute_force.h"

#include <set>
#include <tuple>
#include <vector>

namespace ublkd::history {
namespace {

/// One step that takes effect at some moment from begin to end.
struct Step {
    enum class Kind { kRead, kWrite, kFlush, kLoss } kind = Kind::kRead;
    std::uint64_t value = 0;
    bool durable = false;
    Time begin = 0;
    Time end = 0;
};

class Search {
  public:
    explicit Search(std::vector<Step> steps) : steps_(std::move(steps)) {}

    /// `done`: bits of steps_. `durable`: bits of the values that a loss may leave.
    bool reaches_end(std::uint32_t done, std::uint64_t value, std::uint32_t durable) {
        bool all = true;
        Time first_end = kOpen;
        for (std::size_t i = 0; i < steps_.size(); ++i) {
            if ((done >> i & 1) != 0) continue;
            if (steps_[i].end != kOpen) all = false;
            first_end = std::min(first_end, steps_[i].end);
        }
        if (all) return true;
        if (!seen_.emplace(done, value, durable).second) return false;
        for (std::size_t i = 0; i < steps_.size(); ++i) {
            const bool may_be_next = (done >> i & 1) == 0 && steps_[i].begin <= first_end;
            if (may_be_next && take(steps_[i], done | 1U << i, value, durable)) return true;
        }
        return false;
    }

  private:
    bool take(const Step& step, std::uint32_t done, std::uint64_t value, std::uint32_t durable) {
        switch (step.kind) {
            case Step::Kind::kRead:
                return step.value == value && reaches_end(done, value, durable);
            case Step::Kind::kWrite: {
                const std::uint32_t bit = 1U << step.value;
                return reaches_end(done, step.value, step.durable ? bit : durable | bit);
            }
            case Step::Kind::kFlush:
                return reaches_end(done, value, 1U << value);
            case Step::Kind::kLoss:
                for (std::uint64_t left = 0; left < 32; ++left) {
                    if ((durable >> left & 1) != 0 && reaches_end(done, left, 1U << left))
                        return true;
                }
                return false;
        }
        return false;
    }

    std::vector<Step> steps_;
    std::set<std::tuple<std::uint32_t, std::uint64_t, std::uint32_t>> seen_;
};

}  // namespace

bool possible_by_brute_force(std::span<const SectorEvent> events, std::span<const Flush> flushes,
                             std::span<const Loss> losses) {
    std::vector<Step> steps;
    for (const SectorEvent& event : events) {
        steps.push_back(Step{event.write ? Step::Kind::kWrite : Step::Kind::kRead, event.value,
                             event.durable && event.end != kOpen, event.begin, event.end});
    }
    // What counts of a flush is the moment it began.
    for (const Flush& flush : flushes)
        steps.push_back(Step{Step::Kind::kFlush, 0, false, flush.begin, flush.begin});
    for (const Loss& loss : losses)
        steps.push_back(Step{Step::Kind::kLoss, 0, false, loss.begin, loss.end});
    return Search(std::move(steps)).reaches_end(0, 0, 1);
}

}  // namespace ublkd::history
