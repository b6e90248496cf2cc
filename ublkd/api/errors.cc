#include "ublkd/api/errors.h"

#include <array>

#include <fmt/format.h>

#include "ublkd/base/check.h"

namespace ublkd::api {
namespace {

constexpr std::array kCodes{
    // Bad input: exit code 2.
    ApiCode{"InvalidParameterValue", 400, 2},
    ApiCode{"InvalidParameterCombination", 400, 2},
    ApiCode{"InvalidRequest", 400, 2},
    ApiCode{"InvalidVolumeID.Malformed", 400, 2},
    ApiCode{"InvalidInstanceID.Malformed", 400, 2},
    ApiCode{"MissingParameter", 400, 2},
    ApiCode{"IdempotentParameterMismatch", 400, 1},
    ApiCode{"RequestTooLarge", 413, 2},
    ApiCode{"UnsupportedOperation", 400, 1},
    // No such thing: 3.
    ApiCode{"InvalidVolume.NotFound", 404, 3},
    ApiCode{"InvalidInstanceID.NotFound", 404, 3},
    ApiCode{"InvalidAttachment.NotFound", 404, 3},
    ApiCode{"InvalidPool.NotFound", 404, 3},
    ApiCode{"InvalidHost.NotFound", 404, 3},
    ApiCode{"InvalidPermission.NotFound", 404, 3},
    ApiCode{"InvalidDevice.NotFound", 404, 3},
    ApiCode{"InvalidResource.NotFound", 404, 3},
    ApiCode{"InvalidAction.NotFound", 404, 3},
    // Not allowed: 4.
    ApiCode{"UnauthorizedOperation", 403, 4},
    // Conflict or busy: 5.
    ApiCode{"IncorrectState", 409, 5},
    ApiCode{"VolumeInUse", 409, 5},
    ApiCode{"PoolInUse", 409, 5},
    ApiCode{"InstanceInUse", 409, 5},
    ApiCode{"DeviceInUse", 409, 5},
    ApiCode{"AlreadyExists", 409, 5},
    // All else: 1.
    ApiCode{"NotInitialized", 409, 1},
    ApiCode{"MethodNotAllowed", 405, 1},
    ApiCode{"AttachmentLimitExceeded", 400, 1},
    ApiCode{"InsufficientStorage", 507, 1},
    ApiCode{"Unavailable", 503, 1},
    ApiCode{"RequestTimeout", 504, 1},
    ApiCode{"DeviceError", 500, 1},
    ApiCode{"CorruptData", 500, 1},
    ApiCode{"InternalError", 500, 1},
};

}  // namespace

std::span<const ApiCode> api_codes() { return kCodes; }

const ApiCode& api_code(std::string_view code) {
    for (const ApiCode& row : kCodes) {
        if (row.code == code) return row;
    }
    return kCodes.back();
}

std::string_view code_of(Errc code) noexcept {
    switch (code) {
        case Errc::kInvalidArgument: return "InvalidParameterValue";
        case Errc::kNotFound: return "InvalidResource.NotFound";
        case Errc::kExists: return "AlreadyExists";
        case Errc::kIo: return "DeviceError";
        case Errc::kCorrupt: return "CorruptData";
        case Errc::kNoSpace: return "InsufficientStorage";
        case Errc::kReadOnly: return "IncorrectState";
        case Errc::kBusy: return "IncorrectState";
        case Errc::kStale: return "IncorrectState";
        case Errc::kConflict: return "IncorrectState";
        case Errc::kTimedOut: return "RequestTimeout";
        case Errc::kCancelled: return "Unavailable";
        case Errc::kClosed: return "Unavailable";
        case Errc::kProtocol: return "InternalError";
        case Errc::kUnsupported: return "UnsupportedOperation";
        case Errc::kNotPermitted: return "UnauthorizedOperation";
        case Errc::kExhausted: return "Unavailable";
    }
    return "InternalError";
}

ApiError from_error(const Error& error, std::string_view what) {
    return ApiError{std::string(code_of(error.code)), fmt::format("{}: {}", what, to_string(error))};
}

}  // namespace ublkd::api
