#include "tests/history/nbd_connection.h"

#include <poll.h>

#include <cerrno>

namespace ublkd::history {

struct NbdConnection::Request {
    NbdConnection* connection;
    Done done;
};

void NbdConnection::start_connecting(const std::string& uri) {
    close();
    handle_ = nbd_create();
    if (handle_ != nullptr && nbd_aio_connect_uri(handle_, uri.c_str()) != 0) close();
}

void NbdConnection::close() {
    if (handle_ == nullptr) return;
    nbd_handle* const handle = handle_;
    handle_ =
        nullptr;  // so that what is told of its requests from here on is not taken for answers
    nbd_close(handle);
}

bool NbdConnection::lives() const {
    return handle_ != nullptr && nbd_aio_is_dead(handle_) == 0 && nbd_aio_is_closed(handle_) == 0;
}

bool NbdConnection::is_ready() const {
    return lives() && (nbd_aio_is_ready(handle_) == 1 || nbd_aio_is_processing(handle_) == 1);
}

std::uint64_t NbdConnection::size_bytes() const {
    const std::int64_t size = nbd_get_size(handle_);
    return size < 0 ? 0 : static_cast<std::uint64_t>(size);
}

int NbdConnection::fd() const { return handle_ == nullptr ? -1 : nbd_aio_get_fd(handle_); }

short NbdConnection::poll_events() const {
    if (handle_ == nullptr) return 0;
    const unsigned direction = nbd_aio_get_direction(handle_);
    return static_cast<short>(((direction & LIBNBD_AIO_DIRECTION_READ) != 0 ? POLLIN : 0) |
                              ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0 ? POLLOUT : 0));
}

bool NbdConnection::handle_events(short events) {
    if (handle_ == nullptr) return false;
    const unsigned direction = nbd_aio_get_direction(handle_);
    if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0 &&
        (events & (POLLIN | POLLHUP | POLLERR)) != 0)
        (void)nbd_aio_notify_read(handle_);
    else if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0 &&
             (events & (POLLOUT | POLLHUP | POLLERR)) != 0)
        (void)nbd_aio_notify_write(handle_);
    if (lives()) return true;
    close();
    return false;
}

nbd_completion_callback NbdConnection::callback_for(Done done) {
    auto* const request = new Request{this, std::move(done)};
    nbd_completion_callback callback{};
    callback.user_data = request;
    callback.callback = [](void* opaque, int* error) {
        auto* const ended = static_cast<Request*>(opaque);
        // libnbd ends what is under way on a dying connection with ENOTCONN, which no server sends.
        const bool answered = ended->connection->handle_ != nullptr && *error != ENOTCONN;
        if (answered) ended->done(*error);
        return 1;
    };
    callback.free = [](void* opaque) { delete static_cast<Request*>(opaque); };
    return callback;
}

bool NbdConnection::read(std::span<std::byte> into, std::uint64_t offset_bytes, Done done) {
    return nbd_aio_pread(handle_, into.data(), into.size(), offset_bytes,
                         callback_for(std::move(done)), 0) >= 0;
}

bool NbdConnection::write(std::span<const std::byte> from, std::uint64_t offset_bytes, bool fua,
                          Done done) {
    return nbd_aio_pwrite(handle_, from.data(), from.size(), offset_bytes,
                          callback_for(std::move(done)), fua ? LIBNBD_CMD_FLAG_FUA : 0) >= 0;
}

bool NbdConnection::zero(std::uint64_t bytes, std::uint64_t offset_bytes, bool fua, Done done) {
    return nbd_aio_zero(handle_, bytes, offset_bytes, callback_for(std::move(done)),
                        fua ? LIBNBD_CMD_FLAG_FUA : 0) >= 0;
}

bool NbdConnection::discard(std::uint64_t bytes, std::uint64_t offset_bytes, bool fua, Done done) {
    return nbd_aio_trim(handle_, bytes, offset_bytes, callback_for(std::move(done)),
                        fua ? LIBNBD_CMD_FLAG_FUA : 0) >= 0;
}

bool NbdConnection::flush(Done done) {
    return nbd_aio_flush(handle_, callback_for(std::move(done)), 0) >= 0;
}

}  // namespace ublkd::history
