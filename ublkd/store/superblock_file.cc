#include "ublkd/store/superblock_file.h"

#include <algorithm>

#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::store {
namespace {

Superblock changed(const Superblock& from, const SuperblockChange& change) {
    Superblock next = from;
    if (change.number) next.number = *change.number;
    if (change.record) next.record = *change.record;
    if (change.pending) next.pending = *change.pending;
    if (change.boot_id) next.boot_id = *change.boot_id;
    if (change.clean) next.clean = *change.clean;
    if (change.durable_through)
        next.durable_through = std::max(next.durable_through, *change.durable_through);
    if (change.cleared_through) next.cleared_through = *change.cleared_through;
    if (change.lost) next.lost = *change.lost;
    if (change.left_by) next.left_by = *change.left_by;
    return next;
}

}  // namespace

SuperblockFile::SuperblockFile(std::unique_ptr<DiskFile> file)
    : file_(std::move(file)), page_(kSuperblockBytes) {
    CHECK(page_, "memory for a superblock");
}

io::Task<Result<void>> SuperblockFile::format(Superblock first) {
    // Copy 1 gets sequence 1, copy 0 gets 2: both are valid from the start.
    current_ = SuperblockCopy{first, 1};
    CO_TRY(co_await write_copy(&current_, 1));
    current_.sequence = 2;
    co_return co_await write_copy(&current_, 0);
}

io::Task<Result<void>> SuperblockFile::load(ReplicaId incarnation) {
    std::uint64_t size_bytes = 0;
    CO_TRY_ASSIGN(size_bytes, file_->size_bytes());
    if (size_bytes < kSuperblockFileBytes)
        co_return fail(Errc::kCorrupt, "superblock file is cut short");
    bool found = false;
    Error why{Errc::kCorrupt};
    for (std::uint32_t copy = 0; copy < 2; ++copy) {
        const SuperblockPage page(page_.data(), kSuperblockBytes);
        const Result<void> got = co_await file_->read(copy * kSuperblockBytes, page);
        const auto decoded = got ? decode_superblock(page, copy, incarnation)
                                 : Result<SuperblockCopy>(fail(got.error()));
        if (!decoded) {
            // A newer ublkd wrote here, or this host has no memory to read it: what the other copy
            // says may be outdated.
            const Errc code = decoded.error().code;
            const bool shortage =
                code == Errc::kExhausted && !faults::rule_off("rule.shortage_is_no_damage");
            if (code == Errc::kUnsupported || shortage) co_return fail(decoded.error());
            why = decoded.error();
            both_copies_valid_ = false;
            continue;
        }
        if (!found || decoded->sequence > current_.sequence) current_ = *decoded;
        found = true;
    }
    if (!found) co_return fail(why);
    co_return Result<void>{};
}

io::Task<Result<void>> SuperblockFile::update(SuperblockChange change) {
    co_await turn_.acquire();
    if (failed_) {
        turn_.release();
        co_return fail(*failed_);
    }
    const SuperblockCopy next{changed(current_.value, change), current_.sequence + 1};
    // The copy that holds the newest state stays whole until the other one is durable.
    const auto copy = faults::rule_off("rule.superblock_alternate")
                          ? 0U
                          : static_cast<std::uint32_t>(next.sequence & 1);
    const Result<void> written = co_await write_copy(&next, copy);
    if (written) {
        current_ = next;
    } else if (written.error().code != Errc::kNoSpace) {
        failed_ = written.error();
    }
    turn_.release();
    co_return written;
}

io::Task<Result<void>> SuperblockFile::write_copy(const SuperblockCopy* from, std::uint32_t copy) {
    const SuperblockPage page(page_.data(), kSuperblockBytes);
    encode_superblock(*from, copy, page);
    if (const int error = faults::hit("store.superblock_write"))
        co_return fail_errno(error, "write superblock");
    ++writes_;
    CO_TRY(co_await file_->write(copy * kSuperblockBytes, page, Durability::kDurable));
    if (const int error = faults::hit("store.after_superblock_write"))
        co_return fail_errno(error, "write superblock");
    co_return Result<void>{};
}

}  // namespace ublkd::store
