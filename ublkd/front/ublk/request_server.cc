#include "ublkd/front/ublk/request_server.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/base/log.h"
#include "ublkd/front/ublk/errno_map.h"

namespace ublkd::front::ublk {
namespace {

Range range_of(const uapi::IoDescriptor& descriptor) {
    return Range{descriptor.start_sector * kSectorBytes,
                 std::uint64_t{descriptor.sectors} * kSectorBytes};
}

bool moves_data(std::uint32_t operation) {
    return operation == uapi::kOperationRead || operation == uapi::kOperationWrite;
}

bool changes(std::uint32_t operation) {
    return operation == uapi::kOperationWrite || operation == uapi::kOperationDiscard ||
           operation == uapi::kOperationWriteZeroes;
}

/// The result that the kernel wants: the length for reads and writes, 0 for the others (a length of
/// 2 GiB or more would be negative), or a negative errno.
int result_of(const Result<void>& outcome, const uapi::IoDescriptor& descriptor) {
    if (!outcome) return -to_errno(outcome.error());
    return moves_data(descriptor.operation()) ? static_cast<int>(range_of(descriptor).length_bytes)
                                              : 0;
}

block::RequestId next(block::RequestId id) {
    return block::RequestId{id.client_start, id.sequence + 1};
}

}  // namespace

RequestServer::RequestServer(Parts parts)
    : reactor_(parts.reactor),
      buffers_(parts.buffers),
      device_(parts.device),
      channel_(std::move(parts.channel)),
      ids_(std::move(parts.ids)),
      tags_(std::size_t{parts.queues} * parts.depth) {
    for (std::size_t i = 0; i < tags_.size(); ++i) {
        tags_[i].server = this;
        tags_[i].queue = static_cast<std::uint16_t>(i / parts.depth);
        tags_[i].number = static_cast<std::uint16_t>(i % parts.depth);
        tags_[i].on_cqe = &RequestServer::on_cqe;
    }
}

RequestServer::~RequestServer() { CHECK(is_final(), "the kernel has given every tag back"); }

void RequestServer::keep_for_ever(std::unique_ptr<RequestServer> server) {
    static std::vector<std::unique_ptr<RequestServer>>* const kept =
        new std::vector<std::unique_ptr<RequestServer>>();
    server->requests_.begin_close();
    // A request that is stuck below may still want to copy its data.
    if (server->requests_.count() == 0) server->channel_.reset();
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    kept->push_back(std::move(server));
}

// ---- tags

io::Task<Result<void>> RequestServer::offer_all() {
    offering_ = true;
    if (!reactor_->make_room(static_cast<unsigned>(tags_.size())))
        log::warn("{} tags are not offered at once: a death now may lose the device", tags_.size());
    const std::size_t half = tags_.size() / 2;
    for (std::size_t i = 0; i < tags_.size(); ++i) {
        // All in one entry into the kernel: no signal comes in between, so that no server dies with
        // half of its tags fetched, which Linux before 7.0.10 never forgets (CVE-2026-53124).
        if (i == half && faults::rule_off("rule.fetch_all_at_once")) {
            co_await reactor_->yield();
            co_await reactor_->yield();
            (void)faults::hit("ublk.half_fetched");
        }
        ++with_kernel_;
        channel_->fetch(tags_[i].queue, tags_[i].number, &tags_[i]);
    }
    // Twice, whichever step of a turn this is: then they have entered, and a refusal has been taken
    // in.
    co_await reactor_->yield();
    co_await reactor_->yield();
    offering_ = false;
    if (refused_errno_ != 0) co_return fail_errno(refused_errno_, "ublk FETCH_REQ");
    // Only now: Linux 6.12 keeps a device for the process that mapped it until a recovery starts
    // anew, which it refuses (EINVAL) where a server died in a recovery before its tags were there.
    CO_TRY(channel_->map_descriptors());
    mapped_ = true;
    for (Tag* const tag : std::exchange(early_, {})) io::spawn(requests_, serve(tag));
    co_return Result<void>{};
}

void RequestServer::on_cqe(io::Completion* completion, int result, std::uint32_t) noexcept {
    Tag* const tag = static_cast<Tag*>(completion);
    tag->server->take_back(tag, result);
}

void RequestServer::take_back(Tag* tag, int result) {
    --with_kernel_;
    if (result == uapi::kIoOk) {
        if (!mapped_) {  // Linux 7 sends requests of a recovery as soon as all tags are fetched
            early_.push_back(tag);
            return;
        }
        // Refused while draining: the request stays the kernel's, for the next server.
        if (!requests_.is_closed()) {
            io::spawn(requests_, serve(tag));
            return;
        }
    } else if (result != uapi::kIoAbort) {
        if (offering_) {
            refused_errno_ = -result;
        } else {
            log::error("queue {} tag {}: the kernel refused an answer (errno {}); the tag is lost",
                       tag->queue, tag->number, -result);
        }
    }
}

io::Task<void> RequestServer::drain() { co_await requests_.close(); }

io::Task<bool> RequestServer::wait_final(io::Clock::time_point until) {
    // Short sleeps: this is the end of a device, not its data path.
    while (!is_final()) {
        if (io::Clock::now() >= until) co_return false;
        co_await reactor_->sleep_for(std::chrono::milliseconds(2));
    }
    co_return true;
}

// ---- requests

io::Task<void> RequestServer::serve(Tag* tag) {
    const uapi::IoDescriptor descriptor = channel_->descriptor(tag->queue, tag->number);
    const auto outcome = co_await perform(tag, &descriptor);
    ++counters_.requests;
    if (!outcome) {
        ++counters_.errors;
        if (is_power_of_two(counters_.errors)) {  // a dead volume fails each request: the log must
                                                  // not grow with them
            log::error("request {} of {} sectors at {} ({} failed so far): {}",
                       descriptor.operation(), descriptor.sectors, descriptor.start_sector,
                       counters_.errors, to_string(outcome.error()));
        }
    }
    // Before the answer: whoever takes the device over would take the tag's next request, if it is
    // like this one, for this one coming again (R8).
    if (!faults::rule_off("rule.slot_cleared_first")) ids_.end(tag->queue, tag->number);
    ++with_kernel_;
    channel_->commit_and_fetch(tag->queue, tag->number, result_of(outcome, descriptor), tag);
}

std::uint64_t RequestServer::parts_of(const uapi::IoDescriptor& descriptor) const {
    const block::Geometry& geometry = device_->geometry();
    const std::uint64_t limit = moves_data(descriptor.operation())
                                    ? std::min<std::uint64_t>(geometry.max_io_bytes, kMaxIoBytes)
                                    : geometry.max_range_bytes;
    return std::max<std::uint64_t>(1, divide_up(range_of(descriptor).length_bytes, limit));
}

io::Task<Result<void>> RequestServer::perform(Tag* tag, const uapi::IoDescriptor* descriptor) {
    const std::uint32_t operation = descriptor->operation();
    const Range range = range_of(*descriptor);
    const bool fua = (descriptor->operation_and_flags & uapi::kFlagFua) != 0;
    block::RequestId id{};
    if (changes(operation)) {
        id = ids_.begin(tag->queue, tag->number, *descriptor, parts_of(*descriptor));
    }
    if (const int error = faults::hit("ublk.request"); error != 0)
        co_return fail_errno(error, "fault point");
    switch (operation) {
        case uapi::kOperationRead:
            co_return co_await read(tag, range);
        case uapi::kOperationWrite: {
            const auto written = co_await write(tag, range, block::WriteOptions{fua, id});
            (void)faults::hit("ublk.before_commit");
            co_return written;
        }
        case uapi::kOperationFlush:
            co_return co_await device_->flush();
        case uapi::kOperationDiscard:
            co_return co_await clear(true, range, block::ZeroOptions{fua, false, false, id});
        case uapi::kOperationWriteZeroes: {
            const bool keep = (descriptor->operation_and_flags & uapi::kFlagNoUnmap) != 0;
            co_return co_await clear(false, range, block::ZeroOptions{fua, keep, false, id});
        }
        default:
            co_return fail(Errc::kUnsupported, "operation of a ublk request");
    }
}

io::Task<Result<void>> RequestServer::read(Tag* tag, Range range) {
    const std::uint64_t limit =
        std::min<std::uint64_t>(device_->geometry().max_io_bytes, kMaxIoBytes);
    for (std::uint64_t done = 0; done < range.length_bytes;) {
        const std::uint64_t bytes = std::min(limit, range.length_bytes - done);
        const io::Buffer buffer = co_await buffers_->acquire(bytes);
        CO_TRY(co_await device_->read(range.offset_bytes + done, buffer.span()));
        CO_TRY(channel_->give_data(tag->queue, tag->number, buffer.span(), done));
        done += bytes;
    }
    co_return Result<void>{};
}

io::Task<Result<void>> RequestServer::write(Tag* tag, Range range, block::WriteOptions options) {
    const std::uint64_t limit =
        std::min<std::uint64_t>(device_->geometry().max_io_bytes, kMaxIoBytes);
    for (std::uint64_t done = 0; done < range.length_bytes;) {
        const std::uint64_t bytes = std::min(limit, range.length_bytes - done);
        const io::Buffer buffer = co_await buffers_->acquire(bytes);
        CO_TRY(channel_->take_data(tag->queue, tag->number, buffer.span(), done));
        CO_TRY(co_await device_->write(range.offset_bytes + done, buffer.span(), options));
        done += bytes;
        options.id = next(options.id);
    }
    co_return Result<void>{};
}

io::Task<Result<void>> RequestServer::clear(bool discard, Range range, block::ZeroOptions options) {
    for (std::uint64_t done = 0; done < range.length_bytes;) {
        const std::uint64_t bytes =
            std::min(device_->geometry().max_range_bytes, range.length_bytes - done);
        const Range part{range.offset_bytes + done, bytes};
        if (discard) {
            CO_TRY(co_await device_->discard(part, block::WriteOptions{options.fua, options.id}));
        } else {
            CO_TRY(co_await device_->write_zeroes(part, options));
        }
        done += bytes;
        options.id = next(options.id);
    }
    co_return Result<void>{};
}

}  // namespace ublkd::front::ublk
