// What the NBD server may show: names to block devices. Implemented by the daemon (a volume
// attached by NBD is an export under its id and its name), by tests and benches over a
// MemoryDevice.
//
// Thread: all calls are made on the server's reactor. An export is opened when a client's handshake
// ends (GO or EXPORT_NAME), never before, and let go when the last request of that connection has
// ended. See docs/nbd.md.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ublkd/base/result.h"
#include "ublkd/block/block_device.h"
#include "ublkd/io/buffer_pool.h"
#include "ublkd/io/reactor.h"
#include "ublkd/io/task.h"

namespace ublkd::front::nbd {

/// What a client may learn of an export without opening it.
struct ExportInfo {
    std::string name;         // the canonical name (a volume's id); at most 4096 bytes
    std::string description;  // for people; may be empty
    block::Geometry geometry;
};

/// An opened export. `device` lives on `home` and is used there alone.
struct Export {
    ExportInfo info;
    block::BlockDevice* device = nullptr;
    io::Reactor* home = nullptr;
    /// Where requests keep their data; belongs to `home`. Not a pool that the device takes from
    /// while it serves a request: the two would wait for each other. nullptr: the server's pool,
    /// where `home` is the server's reactor.
    io::BufferPool* buffers = nullptr;
    /// Keeps the device alive and in use; destroyed on the server's reactor after the connection's
    /// last request.
    std::shared_ptr<void> holder;
};

class ExportDirectory {
  public:
    virtual ~ExportDirectory() = default;
    /// Names for LIST, in the order they are shown.
    virtual std::vector<std::string> list() = 0;
    /// "" is the default export. kNotFound: no such export. `name` stays valid until the Task has
    /// ended.
    virtual io::Task<Result<ExportInfo>> describe(const std::string& name) = 0;
    /// Errors: kNotFound, kBusy (detaching), kNotPermitted.
    virtual io::Task<Result<Export>> open(const std::string& name) = 0;
};

}  // namespace ublkd::front::nbd
