// Devices that misbehave on request. Switches are set by the test's thread; requests look at them
// on the reactor.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "ublkd/block/memory_device.h"
#include "ublkd/io/reactor.h"

namespace ublkd::front::nbd::test {

/// Memory, with errors, delays, and requests that are held until they are let go.
class SwitchedDevice final : public block::BlockDevice {
  public:
    explicit SwitchedDevice(block::Geometry geometry)
        : memory_(memory_geometry(geometry)), geometry_(geometry) {}
    const block::Geometry& geometry() const override { return geometry_; }

    static constexpr int kNoError = -1;
    std::atomic<int> fail_with = kNoError;           // an Errc for every request
    std::atomic<std::int64_t> fail_from_offset = 0;  // only requests that reach this far fail
    std::atomic<unsigned> delay_ms = 0;
    std::atomic<unsigned> yields = 0;  // turns that a request takes
    std::atomic<bool> hold = false;
    std::atomic<std::int64_t> hold_from_offset = 0;  // only requests that reach this far are held
    std::atomic<unsigned> in_flight = 0;
    std::atomic<unsigned> most_in_flight = 0;
    std::atomic<std::uint64_t> writes = 0;
    std::atomic<std::uint64_t> fua_writes = 0;
    std::atomic<std::uint64_t> flushes = 0;
    std::atomic<std::uint64_t> discarded_bytes = 0;
    std::atomic<std::uint64_t> zeroed_bytes = 0;
    std::atomic<bool> last_zero_kept = false;
    std::atomic<bool> slow_zeroes = false;  // FAST_ZERO is refused

  private:
    static block::Geometry memory_geometry(block::Geometry geometry) {
        geometry.read_only = false;
        return geometry;
    }
    io::Task<Result<void>> pass(std::uint64_t end_bytes) {
        ++in_flight;
        if (in_flight > most_in_flight) most_in_flight = in_flight.load();
        io::Reactor* const reactor = io::Reactor::current();
        for (unsigned left = yields; left > 0; --left) co_await reactor->yield();
        while (hold && static_cast<std::int64_t>(end_bytes) >= hold_from_offset)
            co_await reactor->sleep_for(std::chrono::milliseconds(1));
        if (delay_ms > 0) co_await reactor->sleep_for(std::chrono::milliseconds(delay_ms));
        --in_flight;
        if (fail_with != kNoError && static_cast<std::int64_t>(end_bytes) >= fail_from_offset)
            co_return fail(Errc(fail_with.load()), "switched to fail");
        co_return Result<void>{};
    }

    io::Task<Result<void>> do_read(std::uint64_t offset_bytes, std::span<std::byte> into) override {
        CO_TRY(co_await pass(offset_bytes + into.size()));
        co_return co_await memory_.read(offset_bytes, into);
    }
    io::Task<Result<void>> do_write(std::uint64_t offset_bytes, std::span<const std::byte> data,
                                    block::WriteOptions options) override {
        ++writes;
        if (options.fua) ++fua_writes;
        CO_TRY(co_await pass(offset_bytes + data.size()));
        co_return co_await memory_.write(offset_bytes, data, options);
    }
    io::Task<Result<void>> do_flush() override {
        ++flushes;
        co_return co_await pass(geometry_.size_bytes);
    }
    io::Task<Result<void>> do_discard(Range range, block::WriteOptions options) override {
        CO_TRY(co_await pass(range.end_bytes()));
        discarded_bytes += range.length_bytes;
        co_return co_await memory_.discard(range, options);
    }
    io::Task<Result<void>> do_write_zeroes(Range range, block::ZeroOptions options) override {
        if (options.fast_only && slow_zeroes)
            co_return fail(Errc::kUnsupported, "zeroes are slow here");
        CO_TRY(co_await pass(range.end_bytes()));
        zeroed_bytes += range.length_bytes;
        last_zero_kept = options.keep_allocated;
        co_return co_await memory_.write_zeroes(range, options);
    }
    io::Task<Result<std::vector<block::Extent>>> do_block_status(Range range,
                                                                 std::size_t max_extents) override {
        CO_TRY(co_await pass(range.end_bytes()));
        co_return co_await memory_.block_status(range, max_extents);
    }

    block::MemoryDevice memory_;
    block::Geometry geometry_;
};

/// Any size, holds nothing, reads as zeroes; one extent whatever is asked.
class EndlessDevice final : public block::BlockDevice {
  public:
    explicit EndlessDevice(std::uint64_t size_bytes) { geometry_.size_bytes = size_bytes; }
    const block::Geometry& geometry() const override { return geometry_; }

  private:
    io::Task<Result<void>> do_read(std::uint64_t, std::span<std::byte> into) override {
        std::ranges::fill(into, std::byte{0});
        co_return Result<void>{};
    }
    io::Task<Result<void>> do_write(std::uint64_t, std::span<const std::byte>,
                                    block::WriteOptions) override {
        co_return Result<void>{};
    }
    io::Task<Result<void>> do_flush() override { co_return Result<void>{}; }
    io::Task<Result<void>> do_discard(Range, block::WriteOptions) override {
        co_return Result<void>{};
    }
    io::Task<Result<void>> do_write_zeroes(Range, block::ZeroOptions) override {
        co_return Result<void>{};
    }
    io::Task<Result<std::vector<block::Extent>>> do_block_status(Range range,
                                                                 std::size_t) override {
        co_return std::vector<block::Extent>{block::Extent{range.length_bytes, false, true}};
    }
    block::Geometry geometry_;
};

}  // namespace ublkd::front::nbd::test
