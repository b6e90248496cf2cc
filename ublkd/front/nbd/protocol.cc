#include "ublkd/front/nbd/protocol.h"

namespace ublkd::front::nbd {

NbdError to_nbd_error(const Error& error) noexcept {
    switch (error.code) {
        case Errc::kInvalidArgument:
            return NbdError::kInvalid;
        case Errc::kNoSpace:
            return NbdError::kNoSpace;
        case Errc::kReadOnly:
        case Errc::kNotPermitted:
            return NbdError::kPermission;
        case Errc::kUnsupported:
            return NbdError::kNotSupported;
        case Errc::kClosed:
        case Errc::kCancelled:
            return NbdError::kShutdown;
        case Errc::kExhausted:
            return NbdError::kNoMemory;
        case Errc::kNotFound:
        case Errc::kExists:
        case Errc::kIo:
        case Errc::kCorrupt:
        case Errc::kBusy:
        case Errc::kStale:
        case Errc::kConflict:
        case Errc::kTimedOut:
        case Errc::kProtocol:
        case Errc::kLost:
            return NbdError::kIo;
    }
    return NbdError::kIo;
}

}  // namespace ublkd::front::nbd
