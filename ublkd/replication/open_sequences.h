// R8: which changes of one client are open, by sequence, so that no two of them are ever kWindow or
// more apart: members keep that many ids (applied_ids.h), each in the place of the one that is
// kWindow older. Requests need not come in order: ublk sends some again after a restart, under the
// ids that they had. Owner: client.h.
#pragma once

#include <array>
#include <cstdint>

#include "ublkd/base/check.h"
#include "ublkd/replication/applied_ids.h"

namespace ublkd::replication {

class OpenSequences {
  public:
    static constexpr std::uint64_t kWindow = AppliedIds::kWindow;

    bool empty() const { return count_ == 0; }
    /// Whether no open change is kWindow or more away from `sequence`, or is the very same.
    bool may_add(std::uint64_t sequence) const {
        if (count_ == 0) return true;
        if (sequence < lowest_) return highest() - sequence < kWindow;
        return sequence - lowest_ < kWindow && !is_open(sequence);
    }
    void add(std::uint64_t sequence) {
        CHECK(may_add(sequence), "open changes of a client lie within a window");
        if (count_ == 0 || sequence < lowest_) lowest_ = sequence;
        word(sequence) |= bit(sequence);
        ++count_;
    }
    void remove(std::uint64_t sequence) {
        CHECK(count_ > 0 && is_open(sequence), "a change that is open is removed");
        word(sequence) &= ~bit(sequence);
        --count_;
        // Each sequence is passed once while the window moves on.
        while (count_ > 0 && !is_open(lowest_)) ++lowest_;
    }

  private:
    static std::uint64_t bit(std::uint64_t sequence) { return std::uint64_t{1} << (sequence % 64); }
    std::uint64_t& word(std::uint64_t sequence) { return bits_[sequence % kWindow / 64]; }
    /// Of a sequence in [lowest_, lowest_ + kWindow).
    bool is_open(std::uint64_t sequence) const {
        return (bits_[sequence % kWindow / 64] & bit(sequence)) != 0;
    }
    std::uint64_t highest() const {
        std::uint64_t sequence = lowest_ + kWindow - 1;
        while (!is_open(sequence)) --sequence;
        return sequence;
    }

    std::array<std::uint64_t, kWindow / 64> bits_{};
    std::uint64_t lowest_ = 0;  // of those that are open
    std::uint64_t count_ = 0;
};

}  // namespace ublkd::replication
