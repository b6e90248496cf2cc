// How long the oldest request that a disk has not answered has been under way: a disk may hang
// without an error, and a volume that waits for it must not look healthy. Counts requests by the
// tick in which they began, so that a request costs no clock. One for each replica, on the volume's
// reactor; the driver advances it once a second while requests are open.
#pragma once

#include <array>
#include <cstdint>

#include "ublkd/base/check.h"

namespace ublkd::volume {

class DiskWatch {
  public:
    /// What end() is given when the request has ended.
    std::uint64_t begin() {
        ++open_;
        ++begun_[tick_ % kTicks];
        return tick_;
    }
    void end(std::uint64_t begun) {
        CHECK(open_ > 0, "a request ends once");
        --open_;
        --(tick_ - begun < kTicks ? begun_[begun % kTicks] : old_);
    }
    /// One tick has passed.
    void advance() {
        ++tick_;
        std::uint64_t& leaving = begun_[tick_ % kTicks];
        if (old_ == 0) old_since_ = tick_ - kTicks;
        old_ += leaving;
        leaving = 0;
    }
    std::uint64_t open() const { return open_; }
    /// Ticks that came since the oldest open request began; 0: none is open. Beyond kTicks the
    /// age of the oldest that there was since one of that age is open.
    std::uint64_t oldest_ticks() const {
        if (old_ > 0) return tick_ - old_since_;
        for (std::uint64_t age = kTicks; age-- > 0;) {
            if (tick_ >= age && begun_[(tick_ - age) % kTicks] > 0) return age;
        }
        return 0;
    }

  private:
    static constexpr std::uint64_t kTicks = 16;
    std::array<std::uint64_t, kTicks> begun_{};  // open requests, by the tick of their begin
    std::uint64_t old_ = 0;                      // open for longer than that
    std::uint64_t old_since_ = 0;
    std::uint64_t tick_ = kTicks;
    std::uint64_t open_ = 0;
};

}  // namespace ublkd::volume
