// The source of all chance in a run.
#pragma once

#include <cstdint>
#include <random>

namespace ublkd::sim {

class Random {
  public:
    Random(std::uint64_t seed, std::uint64_t stream)
        : engine_(seed * 0x9e3779b97f4a7c15 + stream) {}
    std::uint64_t below(std::uint64_t bound) { return bound == 0 ? 0 : engine_() % bound; }
    bool one_in(std::uint64_t times) { return below(times) == 0; }
    bool percent(int percent) { return below(100) < static_cast<std::uint64_t>(percent); }
    /// Of all magnitudes between the two alike: mostly short, now and then very long.
    std::uint64_t spread(std::uint64_t least, std::uint64_t most) {
        std::uint64_t doublings = 0;
        while (least << (doublings + 1) <= most) ++doublings;
        const std::uint64_t base = least << below(doublings + 1);
        return base + below(base);
    }

  private:
    std::mt19937_64 engine_;
};

}  // namespace ublkd::sim
