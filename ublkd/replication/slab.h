// Objects in stable places, named by tokens that are never reused: an answer that comes too late
// finds nothing instead of somebody else's object. Grows in chunks and never shrinks, so that a
// warm slab allocates nothing.
//
// A token is the generation of its place, the place, and the slab's tag. A place whose generations
// are used up (after 2^40 objects) is left empty for good, so no token comes twice however long a
// slab lives.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "ublkd/base/check.h"

namespace ublkd::replication {

/// T has a member `std::uint64_t token` (0 while free) and is default constructible and assignable.
/// `kTag` (0 to 7) tells the tokens of several slabs apart. `kGenerationBits`: tests take few.
template <class T, unsigned kTag, unsigned kGenerationBits = 40>
class Slab {
  public:
    static bool owns(std::uint64_t token) { return (token & 7U) == kTag; }

    T& make() {
        if (free_.empty()) grow();
        const std::uint64_t index = free_.back();
        free_.pop_back();
        T& object = at(index);
        object.token = (++generations_[index] << kGenerationShift) | (index << kTagBits) | kTag;
        ++count_;
        return object;
    }
    T* find(std::uint64_t token) {
        if (!owns(token)) return nullptr;
        const std::uint64_t index = index_of(token);
        if (index >= generations_.size()) return nullptr;
        T& object = at(index);
        return object.token == token ? &object : nullptr;
    }
    void free(T& object) {
        CHECK(object.token != 0, "an object is freed once");
        const std::uint64_t index = index_of(object.token);
        object = T{};
        if (generations_[index] < kLastGeneration) free_.push_back(index);
        --count_;
    }
    std::size_t count() const { return count_; }
    /// Calls function(T&) for each object in use, oldest place first; it may free the object it is
    /// given, and make others.
    template <class Function>
    void for_each(Function function) {
        // By index: the function may make objects, and so move the list of chunks.
        for (std::size_t chunk = 0; chunk < chunks_.size(); ++chunk) {
            for (T& object : *chunks_[chunk]) {
                if (object.token != 0) function(object);
            }
        }
    }

  private:
    static constexpr std::size_t kChunk = 64;
    static constexpr unsigned kTagBits = 3;
    static constexpr unsigned kGenerationShift = 64 - kGenerationBits;
    static constexpr std::uint64_t kPlaces = std::uint64_t{1} << (kGenerationShift - kTagBits);
    static constexpr std::uint64_t kLastGeneration = (std::uint64_t{1} << kGenerationBits) - 1;
    static_assert(kTag < 8 && kGenerationBits > 0 && kGenerationBits <= 40);

    static std::uint64_t index_of(std::uint64_t token) {
        return (token >> kTagBits) & (kPlaces - 1);
    }
    T& at(std::uint64_t index) { return (*chunks_[index / kChunk])[index % kChunk]; }
    void grow() {
        const std::uint64_t first = generations_.size();
        CHECK(first + kChunk <= kPlaces, "a token has room for each place");
        chunks_.push_back(std::make_unique<std::array<T, kChunk>>());
        generations_.resize(first + kChunk);
        free_.reserve(first + kChunk);
        for (std::uint64_t i = kChunk; i > 0; --i) free_.push_back(first + i - 1);
    }

    std::vector<std::unique_ptr<std::array<T, kChunk>>> chunks_;
    std::vector<std::uint64_t> generations_;  // of each place: how often it was used
    std::vector<std::uint64_t> free_;
    std::size_t count_ = 0;
};

}  // namespace ublkd::replication
