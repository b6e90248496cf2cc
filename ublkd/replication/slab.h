// Objects in stable places, named by tokens that are never reused: an answer that comes too late
// finds nothing instead of somebody else's object. Grows in chunks and never shrinks, so that a
// warm slab allocates nothing.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "ublkd/base/check.h"

namespace ublkd::replication {

/// T has a member `std::uint64_t token` (0 while free) and is default constructible and assignable.
/// `kTag` (0 to 7) tells the tokens of several slabs apart.
template <class T, unsigned kTag>
class Slab {
  public:
    static bool owns(std::uint64_t token) { return (token & 7U) == kTag; }

    T& make() {
        if (free_.empty()) grow();
        const std::uint32_t index = free_.back();
        free_.pop_back();
        T& object = at(index);
        object.token = (++generation_ << 32) | (std::uint64_t{index} << 3) | kTag;
        ++count_;
        return object;
    }
    T* find(std::uint64_t token) {
        if (!owns(token)) return nullptr;
        const std::uint64_t index = (token & 0xffffffffU) >> 3;
        if (index >= chunks_.size() * kChunk) return nullptr;
        T& object = at(static_cast<std::uint32_t>(index));
        return object.token == token ? &object : nullptr;
    }
    void free(T& object) {
        CHECK(object.token != 0, "an object is freed once");
        const auto index = static_cast<std::uint32_t>((object.token & 0xffffffffU) >> 3);
        object = T{};
        free_.push_back(index);
        --count_;
    }
    std::size_t count() const { return count_; }
    /// Calls function(T&) for each object in use, oldest place first; it may free the object it is
    /// given.
    template <class Function>
    void for_each(Function function) {
        for (auto& chunk : chunks_) {
            for (T& object : *chunk) {
                if (object.token != 0) function(object);
            }
        }
    }

  private:
    static constexpr std::size_t kChunk = 64;
    T& at(std::uint32_t index) { return (*chunks_[index / kChunk])[index % kChunk]; }
    void grow() {
        const auto first = static_cast<std::uint32_t>(chunks_.size() * kChunk);
        chunks_.push_back(std::make_unique<std::array<T, kChunk>>());
        free_.reserve(chunks_.size() * kChunk);
        for (std::uint32_t i = kChunk; i > 0; --i) free_.push_back(first + i - 1);
    }

    std::vector<std::unique_ptr<std::array<T, kChunk>>> chunks_;
    std::vector<std::uint32_t> free_;
    std::uint64_t generation_ = 0;
    std::size_t count_ = 0;
};

}  // namespace ublkd::replication
