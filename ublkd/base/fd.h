// A file descriptor that is closed by its owner's end.
#pragma once

#include <unistd.h>

#include <cerrno>
#include <utility>

namespace ublkd {

class Fd {
  public:
    Fd() = default;
    /// Takes over `fd`; -1: none.
    explicit Fd(int fd) : fd_(fd) {}
    Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Fd& operator=(Fd&& other) noexcept {
        if (this != &other) {
            close();
            fd_ = std::exchange(other.fd_, -1);
        }
        return *this;
    }
    ~Fd() { close(); }

    int get() const { return fd_; }
    explicit operator bool() const { return fd_ >= 0; }
    /// To another owner.
    int release() noexcept { return std::exchange(fd_, -1); }
    /// errno stays as it was.
    void close() noexcept {
        if (fd_ < 0) return;
        const int error = errno;
        (void)::close(std::exchange(fd_, -1));
        errno = error;
    }

  private:
    int fd_ = -1;
};

}  // namespace ublkd
