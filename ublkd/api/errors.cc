#include "ublkd/api/errors.h"

#include <fmt/format.h>

#include <array>

#include "ublkd/base/check.h"

namespace ublkd::api {
namespace {

constexpr std::array kCodes{
    // Bad input.
    ApiCode{"InvalidParameterValue", 400},
    ApiCode{"InvalidParameterCombination", 400},
    ApiCode{"InvalidRequest", 400},
    ApiCode{"InvalidVolumeID.Malformed", 400},
    ApiCode{"MissingParameter", 400},
    ApiCode{"IdempotentParameterMismatch", 400},
    ApiCode{"RequestTooLarge", 413},
    ApiCode{"UnsupportedOperation", 400},
    // No such thing.
    ApiCode{"InvalidVolume.NotFound", 404},
    ApiCode{"InvalidInstanceID.NotFound", 404},
    ApiCode{"InvalidAttachment.NotFound", 404},
    ApiCode{"InvalidPool.NotFound", 404},
    ApiCode{"InvalidHost.NotFound", 404},
    ApiCode{"InvalidPermission.NotFound", 404},
    ApiCode{"InvalidDevice.NotFound", 404},
    ApiCode{"InvalidResource.NotFound", 404},
    ApiCode{"InvalidAction.NotFound", 404},
    // Not allowed.
    ApiCode{"UnauthorizedOperation", 403},
    // Conflict or busy.
    ApiCode{"IncorrectState", 409},
    ApiCode{"AttachmentLimitExceeded", 409},
    ApiCode{"VolumeInUse", 409},
    ApiCode{"PoolInUse", 409},
    ApiCode{"HostInUse", 409},
    ApiCode{"InstanceInUse", 409},
    ApiCode{"DeviceInUse", 409},
    ApiCode{"AlreadyExists", 409},
    // All else; the last one is what an unknown code becomes.
    ApiCode{"NotInitialized", 409},
    ApiCode{"MethodNotAllowed", 405},
    ApiCode{"InsufficientStorage", 507},
    ApiCode{"Unavailable", 503},
    ApiCode{"RequestTimeout", 504},
    ApiCode{"DeviceError", 500},
    ApiCode{"CorruptData", 500},
    ApiCode{"InternalError", 500},
};

}  // namespace

std::span<const ApiCode> api_codes() { return kCodes; }

const ApiCode& api_code(std::string_view code) {
    for (const ApiCode& row : kCodes) {
        if (row.code == code) return row;
    }
    return kCodes.back();
}

std::string shown(std::string_view given) {
    constexpr std::size_t kBytesMax = 80;
    std::string text(given.substr(0, kBytesMax));
    for (char& c : text) {
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    }
    return given.size() > kBytesMax ? text + "..." : text;
}

std::string_view code_of(Errc code) noexcept {
    switch (code) {
        case Errc::kInvalidArgument:
            return "InvalidParameterValue";
        case Errc::kNotFound:
            return "InvalidResource.NotFound";
        case Errc::kExists:
            return "AlreadyExists";
        case Errc::kIo:
            return "DeviceError";
        case Errc::kCorrupt:
            return "CorruptData";
        case Errc::kNoSpace:
            return "InsufficientStorage";
        case Errc::kReadOnly:
            return "IncorrectState";
        case Errc::kBusy:
            return "IncorrectState";
        case Errc::kStale:
            return "IncorrectState";
        case Errc::kConflict:
            return "IncorrectState";
        case Errc::kTimedOut:
            return "RequestTimeout";
        case Errc::kCancelled:
            return "Unavailable";
        case Errc::kClosed:
            return "Unavailable";
        case Errc::kProtocol:
        case Errc::kLost:
            return "InternalError";
        case Errc::kUnsupported:
            return "UnsupportedOperation";
        case Errc::kNotPermitted:
            return "UnauthorizedOperation";
        case Errc::kExhausted:
            return "Unavailable";
    }
    return "InternalError";
}

ApiError from_error(const Error& error, std::string_view what) {
    return ApiError{std::string(code_of(error.code)),
                    fmt::format("{}: {}", what, to_string(error))};
}

}  // namespace ublkd::api
