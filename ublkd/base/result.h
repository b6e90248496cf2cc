// Errors as values: `Result<T>` is what every call that can fail for reasons of the world (disk,
// kernel, peer, user) returns; bugs are CHECKs (check.h). An Error is 16 bytes and never allocates,
// so a failing disk costs no more than a working one. Each Errc has a row in docs/errors.md: cause,
// layer, whether a retry is safe, what the guest sees. The callee returns, the boundary (front,
// api, main) logs once. Used by every folder; depends on none.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <utility>

namespace ublkd {

enum class Errc : std::uint16_t {
    kInvalidArgument,  // the caller's request is malformed: range, alignment, flags, name
    kNotFound,         // no such object
    kExists,           // an object of that name or id is there already
    kIo,               // a disk failed the request (the replica, or all members)
    kCorrupt,          // bytes from a disk or a peer fail their checksum or contradict themselves
    kNoSpace,          // a pool or file system is full
    kReadOnly,         // a write to something opened read-only
    kBusy,             // in use, or in a state that does not allow this now
    kStale,            // an older number, incarnation or record (replication R1)
    kConflict,         // compare-and-set lost: somebody else was first
    kTimedOut,         // a deadline passed; the outcome may be unknown
    kCancelled,        // given up on request, at shutdown
    kClosed,           // the other side, or this object, is gone
    kProtocol,         // a peer or client broke the protocol
    kUnsupported,      // this kernel, version or device cannot do that
    kNotPermitted,     // not allowed for this user or attachment
    kExhausted,        // a bounded resource (memory, tags, connections) is used up
    kLost,             // unflushed writes may be gone (replication R9): the session is over
};

/// A name such as "io" or "no_space", for logs.
const char* to_string(Errc code) noexcept;

struct Error {
    Errc code;
    std::int16_t sys_errno = 0;  // errno of the call that failed, 0 where there was none
    const char* where = "";      // a literal: what was being done

    friend bool operator==(const Error& a, const Error& b) noexcept {
        return a.code == b.code && a.sys_errno == b.sys_errno;
    }
};
static_assert(sizeof(Error) == 16);

/// "write data file: io (Input/output error)".
std::string to_string(const Error& error);

/// The Error for a failed system call. `sys_errno`: a positive errno.
Error error_from_errno(int sys_errno, const char* where) noexcept;

template <class T>
class [[nodiscard]] Result : public std::expected<T, Error> {
  public:
    using std::expected<T, Error>::expected;
};

inline std::unexpected<Error> fail(Errc code, const char* where, int sys_errno = 0) noexcept {
    return std::unexpected<Error>(Error{code, static_cast<std::int16_t>(sys_errno), where});
}
inline std::unexpected<Error> fail(const Error& error) noexcept {
    return std::unexpected<Error>(error);
}
inline std::unexpected<Error> fail_errno(int sys_errno, const char* where) noexcept {
    return std::unexpected<Error>(error_from_errno(sys_errno, where));
}

}  // namespace ublkd

#define UBLKD_CONCAT_(a, b) a##b
#define UBLKD_CONCAT(a, b) UBLKD_CONCAT_(a, b)
#define UBLKD_TRY_(tmp, ret, expr) \
    auto tmp = (expr);             \
    if (!tmp) ret ::ublkd::fail(tmp.error())
#define UBLKD_TRY_ASSIGN_(tmp, ret, lhs, expr) \
    auto tmp = (expr);                         \
    if (!tmp) ret ::ublkd::fail(tmp.error());  \
    lhs = std::move(*tmp)

/// TRY(expr): returns expr's error from this function. TRY_ASSIGN(lhs, expr): the same, else
/// assigns its value.
#define TRY(expr) UBLKD_TRY_(UBLKD_CONCAT(try_, __COUNTER__), return, expr)
#define TRY_ASSIGN(lhs, expr) UBLKD_TRY_ASSIGN_(UBLKD_CONCAT(try_, __COUNTER__), return, lhs, expr)
/// The same inside a coroutine; `expr` is usually a co_await expression.
#define CO_TRY(expr) UBLKD_TRY_(UBLKD_CONCAT(try_, __COUNTER__), co_return, expr)
#define CO_TRY_ASSIGN(lhs, expr) \
    UBLKD_TRY_ASSIGN_(UBLKD_CONCAT(try_, __COUNTER__), co_return, lhs, expr)
