#include "ublkd/base/result.h"

#include <cerrno>
#include <cstring>

namespace ublkd {

const char* to_string(Errc code) noexcept {
    switch (code) {
        case Errc::kInvalidArgument:
            return "invalid_argument";
        case Errc::kNotFound:
            return "not_found";
        case Errc::kExists:
            return "exists";
        case Errc::kIo:
            return "io";
        case Errc::kCorrupt:
            return "corrupt";
        case Errc::kNoSpace:
            return "no_space";
        case Errc::kReadOnly:
            return "read_only";
        case Errc::kBusy:
            return "busy";
        case Errc::kStale:
            return "stale";
        case Errc::kConflict:
            return "conflict";
        case Errc::kTimedOut:
            return "timed_out";
        case Errc::kCancelled:
            return "cancelled";
        case Errc::kClosed:
            return "closed";
        case Errc::kProtocol:
            return "protocol";
        case Errc::kUnsupported:
            return "unsupported";
        case Errc::kNotPermitted:
            return "not_permitted";
        case Errc::kExhausted:
            return "exhausted";
        case Errc::kLost:
            return "lost";
    }
    return "unknown";
}

std::string to_string(const Error& error) {
    std::string text = error.where;
    if (!text.empty()) text += ": ";
    text += to_string(error.code);
    if (error.sys_errno != 0) {
        char buffer[128];
        text += " (";
        text += strerror_r(error.sys_errno, buffer, sizeof buffer);
        text += ")";
    }
    return text;
}

Error error_from_errno(int sys_errno, const char* where) noexcept {
    Errc code = Errc::kIo;
    switch (sys_errno) {
        case EINVAL:
            code = Errc::kInvalidArgument;
            break;
        case ENOENT:
            code = Errc::kNotFound;
            break;
        case EEXIST:
            code = Errc::kExists;
            break;
        case ENOSPC:
        case EDQUOT:
            code = Errc::kNoSpace;
            break;
        case EROFS:
            code = Errc::kReadOnly;
            break;
        case EBUSY:
        case EAGAIN:
        case EADDRINUSE:
            code = Errc::kBusy;
            break;
        case ETIME:
        case ETIMEDOUT:
            code = Errc::kTimedOut;
            break;
        case ECANCELED:
            code = Errc::kCancelled;
            break;
        case EPIPE:
        case ECONNRESET:
        case ECONNREFUSED:
        case ECONNABORTED:
        case ENOTCONN:
        case EBADF:
            code = Errc::kClosed;
            break;
        case EOPNOTSUPP:
        case ENOSYS:
        case ENOTTY:
            code = Errc::kUnsupported;
            break;
        case EPERM:
        case EACCES:
            code = Errc::kNotPermitted;
            break;
        case ENOMEM:
        case ENOBUFS:
        case EMFILE:
        case ENFILE:
            code = Errc::kExhausted;
            break;
        default:
            break;
    }
    return Error{code, static_cast<std::int16_t>(sys_errno), where};
}

}  // namespace ublkd
