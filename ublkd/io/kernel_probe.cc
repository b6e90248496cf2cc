#include "ublkd/io/kernel_probe.h"

#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <unistd.h>

#include <array>

namespace ublkd::io {
namespace {

using Pipe = std::array<int, 2>;

void close_pipe(const Pipe& pipe) {
    for (const int fd : pipe) {
        if (fd >= 0) ::close(fd);
    }
}

/// A poll waits on registered file 0; the writing end of `closed` is registered as file 1, taken
/// out again and closed.
bool closes_at_once(io_uring* ring, const Pipe& waiting, Pipe* closed) {
    const int files[] = {waiting[0], (*closed)[1]};
    if (io_uring_register_files(ring, files, 2) != 0) return false;
    io_uring_sqe* const sqe = io_uring_get_sqe(ring);
    io_uring_prep_poll_add(sqe, 0, POLLIN);
    sqe->flags |= IOSQE_FIXED_FILE;
    if (io_uring_submit(ring) != 1) return false;
    const int none = -1;
    if (io_uring_register_files_update(ring, 1, &none, 1) != 1) return false;
    ::close((*closed)[1]);
    (*closed)[1] = -1;
    pollfd hung_up{(*closed)[0], POLLIN, 0};
    constexpr int kTimeoutMs = 10;
    return poll(&hung_up, 1, kTimeoutMs) == 1 && (hung_up.revents & POLLHUP) != 0;
}

bool probe() {
    io_uring ring{};
    if (io_uring_queue_init(4, &ring, 0) != 0) return false;
    Pipe waiting{-1, -1};
    Pipe closed{-1, -1};
    const bool made = pipe2(waiting.data(), O_CLOEXEC) == 0 && pipe2(closed.data(), O_CLOEXEC) == 0;
    const bool result = made && closes_at_once(&ring, waiting, &closed);
    io_uring_queue_exit(&ring);
    close_pipe(waiting);
    close_pipe(closed);
    return result;
}

}  // namespace

bool registered_files_close_at_once() {
    static const bool answer = probe();
    return answer;
}

}  // namespace ublkd::io
