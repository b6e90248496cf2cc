// The seed of a randomised test: UBLKD_SEED=N replays a failure, otherwise it is drawn; printed
// with every failure.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>

namespace ublkd::suites {

inline std::uint64_t test_seed() {
    static const std::uint64_t seed = [] {
        const char* const given = std::getenv("UBLKD_SEED");
        return given != nullptr ? std::strtoull(given, nullptr, 10)
                                : std::uint64_t{std::random_device{}()};
    }();
    return seed;
}

inline std::string seed_text() { return "replay with UBLKD_SEED=" + std::to_string(test_seed()); }

/// Random integers of one test; the same seed gives the same sequence.
class Random {
  public:
    explicit Random(std::uint64_t stream = 0) : engine_(test_seed() * 1'000'003 + stream) {}
    /// Uniform in [low, high].
    std::uint64_t between(std::uint64_t low, std::uint64_t high) {
        return std::uniform_int_distribution<std::uint64_t>(low, high)(engine_);
    }
    bool one_in(std::uint64_t n) { return between(1, n) == 1; }

  private:
    std::mt19937_64 engine_;
};

}  // namespace ublkd::suites
