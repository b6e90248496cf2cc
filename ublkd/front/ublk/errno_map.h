// What the guest sees of an Error: the errno that the kernel turns into a block status. Never
// EAGAIN, ENOMEM, EBUSY or ENODEV: the block layer takes those for "try again" or for the device's
// own end. Source: Linux blk_errors[] (block/blk-core.c).
#pragma once

#include <cerrno>

#include "ublkd/base/result.h"

namespace ublkd::front::ublk {

/// A positive errno.
constexpr int to_errno(const Error& error) {
    switch (error.code) {
        case Errc::kNoSpace:
            return ENOSPC;  // BLK_STS_NOSPC: thin provisioning is full
        case Errc::kTimedOut:
            return ETIMEDOUT;  // BLK_STS_TIMEOUT
        case Errc::kCorrupt:
            return EILSEQ;  // BLK_STS_PROTECTION: a checksum is wrong
        case Errc::kUnsupported:
            return EOPNOTSUPP;  // BLK_STS_NOTSUPP: the kernel stops asking for it
        case Errc::kClosed:
        case Errc::kProtocol:
            return ENOLINK;  // BLK_STS_TRANSPORT: a peer is gone
        default:
            return EIO;
    }
}

}  // namespace ublkd::front::ublk
