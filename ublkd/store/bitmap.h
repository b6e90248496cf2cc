// A plain bitmap in memory: one bit per region (activity) or 64 KiB unit (allocated). What
// replication gets to see of a replica's activity map. How a map gets to disk is map_file.h's
// matter.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace ublkd::store {

class Bitmap {
  public:
    Bitmap() = default;
    explicit Bitmap(std::uint64_t bits) : bits_(bits), words_((bits + 63) / 64) {}

    std::uint64_t size() const { return bits_; }
    bool test(std::uint64_t bit) const { return (words_[bit / 64] >> (bit % 64) & 1) != 0; }
    void set(std::uint64_t bit) { words_[bit / 64] |= std::uint64_t{1} << (bit % 64); }
    void clear(std::uint64_t bit) { words_[bit / 64] &= ~(std::uint64_t{1} << (bit % 64)); }

    std::uint64_t count() const {
        std::uint64_t total = 0;
        for (const std::uint64_t word : words_)
            total += static_cast<std::uint64_t>(std::popcount(word));
        return total;
    }
    /// The first bit at or after `from` that is `value`; size() where there is none.
    std::uint64_t find(std::uint64_t from, bool value) const {
        while (from < bits_) {
            const std::uint64_t word =
                (value ? words_[from / 64] : ~words_[from / 64]) >> (from % 64);
            if (word != 0) {
                from += static_cast<std::uint64_t>(std::countr_zero(word));
                return from < bits_ ? from : bits_;
            }
            from = (from / 64 + 1) * 64;
        }
        return bits_;
    }
    std::uint64_t find_set(std::uint64_t from) const { return find(from, true); }
    std::uint64_t find_clear(std::uint64_t from) const { return find(from, false); }

    /// Bit i of word w is bit 64 * w + i of the map.
    std::uint64_t word(std::uint64_t index) const { return words_[index]; }
    void set_word(std::uint64_t index, std::uint64_t value) { words_[index] = value; }
    std::uint64_t words() const { return words_.size(); }

    friend bool operator==(const Bitmap&, const Bitmap&) = default;

  private:
    std::uint64_t bits_ = 0;
    std::vector<std::uint64_t> words_;
};

}  // namespace ublkd::store
