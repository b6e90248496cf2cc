// What NBD clients may see: the volumes that are attached by NBD, under their id and their name.
// Filled by the attach and detach of volumes, asked by the NBD server.
//
// Thread: all calls on the NBD server's reactor (Engine posts there).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "ublkd/front/nbd/export_directory.h"

namespace ublkd::daemon {

class NbdExports final : public front::nbd::ExportDirectory {
  public:
    struct Entry {
        std::string id;    // the volume's: the canonical name
        std::string name;  // its Name tag; may be empty
        block::BlockDevice* device = nullptr;
        block::Geometry geometry;
        io::Reactor* home = nullptr;
        io::BufferPool* buffers = nullptr;
    };

    void add(Entry entry) { entries_[entry.id] = std::move(entry); }
    /// Later clients do not find it; those that are connected are the server's to end.
    void remove(const std::string& id) { entries_.erase(id); }
    void rename(const std::string& id, const std::string& name);

    std::vector<std::string> list() override;
    io::Task<Result<front::nbd::ExportInfo>> describe(const std::string& name) override;
    io::Task<Result<front::nbd::Export>> open(const std::string& name) override;

  private:
    Result<const Entry*> find(const std::string& name) const;
    static front::nbd::ExportInfo info_of(const Entry& entry);
    std::map<std::string, Entry> entries_;
};

}  // namespace ublkd::daemon
