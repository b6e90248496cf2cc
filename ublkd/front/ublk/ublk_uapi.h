// The kernel's ublk interface, written anew: distributions' headers are older than the kernels we
// run on. Numbers, sizes and offsets are the kernel's (include/uapi/linux/ublk_cmd.h) and are held
// by static_asserts. Encoded opcodes only (Linux 6.4); the floor of the product is 6.5
// (GET_FEATURES and USER_COPY). Only what we use is here. See docs/ublk.md.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ublkd::front::ublk::uapi {

// ---- flags of a device (DeviceInfo::flags, GET_FEATURES)
inline constexpr std::uint64_t kSupportZeroCopy = 1ULL << 0;
inline constexpr std::uint64_t kUserRecovery = 1ULL << 3;
inline constexpr std::uint64_t kUserRecoveryReissue = 1ULL << 4;
inline constexpr std::uint64_t kUnprivileged = 1ULL << 5;
inline constexpr std::uint64_t kEncodedCommands = 1ULL << 6;       // CMD_IOCTL_ENCODE, 6.4
inline constexpr std::uint64_t kUserCopy = 1ULL << 7;              // 6.5
inline constexpr std::uint64_t kNoAutoPartitionScan = 1ULL << 18;  // 7.0

// ---- states of a device
inline constexpr std::uint16_t kStateDead = 0;  // added, or its server is gone for good
inline constexpr std::uint16_t kStateLive = 1;
inline constexpr std::uint16_t kStateQuiesced = 2;  // its server died; requests wait for a recovery
inline constexpr std::uint16_t kStateFailIo = 3;    // as above, but requests fail

inline constexpr std::uint16_t kNoQueue = 0xffff;
inline constexpr std::uint32_t kAnyDevice = 0xffffffff;  // ADD_DEV: the kernel picks the number

inline constexpr unsigned kMaxQueueDepth = 4096;  // also the stride of the descriptor arrays
inline constexpr unsigned kMaxIoBytesOfKernel = 32u << 20;

// ---- control commands: _IOC(direction, 'u', number, 32)
enum class Control : std::uint32_t {
    kGetDeviceInfo = 0x80207502,
    kAddDevice = 0xc0207504,
    kDeleteDevice = 0xc0207505,
    kStartDevice = 0xc0207506,  // data: tgid of the server
    kStopDevice = 0xc0207507,
    kSetParameters = 0xc0207508,
    kGetParameters = 0x80207509,
    kStartRecovery = 0xc0207510,
    kEndRecovery = 0xc0207511,  // data: tgid of the server
    kGetFeatures = 0x80207513,
    kDeleteDeviceAsync = 0x80207514,  // 6.9
};

/// The 32 bytes behind a control SQE (byte 48 of a 128-byte SQE).
struct ControlCommand {
    std::uint32_t device_id;
    std::uint16_t queue_id;
    std::uint16_t buffer_bytes;
    std::uint64_t buffer_address;
    std::uint64_t data;
    std::uint16_t path_bytes;
    std::uint16_t pad;
    std::uint32_t reserved;
};
static_assert(sizeof(ControlCommand) == 32 && offsetof(ControlCommand, buffer_address) == 8 &&
              offsetof(ControlCommand, data) == 16 && offsetof(ControlCommand, path_bytes) == 24);

/// What ADD_DEV takes and gives, and GET_DEV_INFO gives.
struct DeviceInfo {
    std::uint16_t queue_count;
    std::uint16_t queue_depth;
    std::uint16_t state;
    std::uint16_t pad0;
    std::uint32_t max_io_bytes;
    std::uint32_t device_id;
    std::int32_t server_pid;
    std::uint32_t pad1;
    std::uint64_t flags;
    std::uint64_t server_flags;  // ours: kept and returned by the kernel (device_tag())
    std::uint32_t owner_uid;
    std::uint32_t owner_gid;
    std::uint64_t reserved1;
    std::uint64_t reserved2;
};
static_assert(sizeof(DeviceInfo) == 64 && offsetof(DeviceInfo, max_io_bytes) == 8 &&
              offsetof(DeviceInfo, server_pid) == 16 && offsetof(DeviceInfo, flags) == 24 &&
              offsetof(DeviceInfo, server_flags) == 32 && offsetof(DeviceInfo, reserved1) == 48);

// ---- parameters
inline constexpr std::uint32_t kParametersBasic = 1;
inline constexpr std::uint32_t kParametersDiscard = 2;
inline constexpr std::uint32_t kAttributeReadOnly = 1;
inline constexpr std::uint32_t kAttributeRotational = 2;
inline constexpr std::uint32_t kAttributeVolatileCache = 4;
inline constexpr std::uint32_t kAttributeFua = 8;

struct BasicParameters {
    std::uint32_t attributes;
    std::uint8_t logical_block_shift;
    std::uint8_t physical_block_shift;
    std::uint8_t optimal_io_shift;
    std::uint8_t minimal_io_shift;
    std::uint32_t max_sectors;
    std::uint32_t chunk_sectors;
    std::uint64_t device_sectors;
    std::uint64_t virtual_boundary_mask;
};
static_assert(sizeof(BasicParameters) == 32 && offsetof(BasicParameters, max_sectors) == 8 &&
              offsetof(BasicParameters, device_sectors) == 16);

struct DiscardParameters {
    std::uint32_t alignment;
    std::uint32_t granularity;  // bytes, not 0
    std::uint32_t max_discard_sectors;
    std::uint32_t max_write_zeroes_sectors;
    std::uint16_t max_discard_segments;  // 1
    std::uint16_t reserved;
};
static_assert(sizeof(DiscardParameters) == 20 &&
              offsetof(DiscardParameters, max_discard_segments) == 16);

/// The part of the kernel's ublk_params that every kernel since 6.0 knows; the rest (zoned, DMA
/// alignment, ...) is not set.
struct Parameters {
    std::uint32_t bytes;  // sizeof(Parameters)
    std::uint32_t types;
    BasicParameters basic;
    DiscardParameters discard;
    std::uint32_t device_numbers[4];  // DEVT, read only, 6.3
    std::uint32_t pad;
};
static_assert(sizeof(Parameters) == 80 && offsetof(Parameters, basic) == 8 &&
              offsetof(Parameters, discard) == 40 && offsetof(Parameters, device_numbers) == 60);

// ---- I/O commands on /dev/ublkcN: _IOWR('u', number, 16)
inline constexpr std::uint32_t kFetch = 0xc0107520;
inline constexpr std::uint32_t kCommitAndFetch = 0xc0107521;

inline constexpr int kIoOk = 0;
inline constexpr int kIoAbort = -19;  // -ENODEV: the tag is final

/// The 16 bytes behind an I/O SQE (byte 48 of a 64-byte SQE). `address` is 0 with USER_COPY.
struct IoCommand {
    std::uint16_t queue_id;
    std::uint16_t tag;
    std::int32_t result;  // bytes done, or a negative errno
    std::uint64_t address;
};
static_assert(sizeof(IoCommand) == 16 && offsetof(IoCommand, address) == 8);

/// What the kernel asks of one tag, in the mapped array of its queue.
struct IoDescriptor {
    std::uint32_t operation_and_flags;
    std::uint32_t sectors;
    std::uint64_t start_sector;
    std::uint64_t address;

    std::uint32_t operation() const { return operation_and_flags & 0xff; }
};
static_assert(sizeof(IoDescriptor) == 24);

inline constexpr std::uint32_t kOperationRead = 0;
inline constexpr std::uint32_t kOperationWrite = 1;
inline constexpr std::uint32_t kOperationFlush = 2;
inline constexpr std::uint32_t kOperationDiscard = 3;
inline constexpr std::uint32_t kOperationWriteZeroes = 5;
inline constexpr std::uint32_t kFlagFua = 1u << 13;
inline constexpr std::uint32_t kFlagNoUnmap = 1u << 15;

/// Where the descriptors of `queue` begin in the mapping of /dev/ublkcN: by the greatest depth, not
/// by the device's.
constexpr std::uint64_t descriptor_offset(unsigned queue, std::uint64_t page_bytes) {
    const std::uint64_t array = kMaxQueueDepth * sizeof(IoDescriptor);
    return queue * ((array + page_bytes - 1) / page_bytes * page_bytes);
}
static_assert(descriptor_offset(1, 4096) == 98304);

/// USER_COPY: the file position in /dev/ublkcN of byte `offset` of a request's data.
constexpr std::uint64_t data_position(unsigned queue, unsigned tag, std::uint64_t offset) {
    return 0x80000000ULL + (static_cast<std::uint64_t>(queue) << 41) +
           (static_cast<std::uint64_t>(tag) << 25) + offset;
}

}  // namespace ublkd::front::ublk::uapi
