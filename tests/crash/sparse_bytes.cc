#include "tests/crash/sparse_bytes.h"

#include <algorithm>
#include <cstring>

namespace ublkd::crash {

void SparseBytes::write(std::uint64_t offset_bytes, std::span<const std::byte> data) {
    while (!data.empty()) {
        const std::uint64_t in_page = offset_bytes % kPageBytes;
        const std::size_t bytes = std::min<std::size_t>(data.size(), kPageBytes - in_page);
        Page& page = pages_.try_emplace(offset_bytes / kPageBytes).first->second;
        std::memcpy(page.data() + in_page, data.data(), bytes);
        data = data.subspan(bytes);
        offset_bytes += bytes;
    }
}

void SparseBytes::read(std::uint64_t offset_bytes, std::span<std::byte> into) const {
    while (!into.empty()) {
        const std::uint64_t in_page = offset_bytes % kPageBytes;
        const std::size_t bytes = std::min<std::size_t>(into.size(), kPageBytes - in_page);
        const auto found = pages_.find(offset_bytes / kPageBytes);
        if (found == pages_.end()) {
            std::memset(into.data(), 0, bytes);
        } else {
            std::memcpy(into.data(), found->second.data() + in_page, bytes);
        }
        into = into.subspan(bytes);
        offset_bytes += bytes;
    }
}

void SparseBytes::zero(Range range, bool keep) {
    const Page zeroes{};
    while (range.length_bytes > 0) {
        const std::uint64_t in_page = range.offset_bytes % kPageBytes;
        const std::uint64_t bytes =
            std::min<std::uint64_t>(range.length_bytes, kPageBytes - in_page);
        if (bytes == kPageBytes && !keep) {
            pages_.erase(range.offset_bytes / kPageBytes);
        } else if (keep || pages_.contains(range.offset_bytes / kPageBytes)) {
            write(range.offset_bytes, std::span(zeroes).first(static_cast<std::size_t>(bytes)));
        }
        range = Range{range.offset_bytes + bytes, range.length_bytes - bytes};
    }
}

Range SparseBytes::next_data(std::uint64_t from_bytes) const {
    auto page = pages_.lower_bound(from_bytes / kPageBytes);
    if (page == pages_.end()) return Range{};
    const std::uint64_t first = page->first;
    std::uint64_t end = first;
    for (; page != pages_.end() && page->first == end; ++page) ++end;
    const std::uint64_t begin_bytes = std::max(from_bytes, first * kPageBytes);
    return Range{begin_bytes, end * kPageBytes - begin_bytes};
}

}  // namespace ublkd::crash
