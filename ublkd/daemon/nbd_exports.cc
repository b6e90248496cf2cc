#include "ublkd/daemon/nbd_exports.h"

namespace ublkd::daemon {

void NbdExports::rename(const std::string& id, const std::string& name) {
    if (const auto found = entries_.find(id); found != entries_.end()) found->second.name = name;
}

std::vector<std::string> NbdExports::list() {
    std::vector<std::string> names;
    for (const auto& [id, entry] : entries_) names.push_back(entry.name.empty() ? id : entry.name);
    return names;
}

/// By id, by name, and "" where exactly one volume is attached.
Result<const NbdExports::Entry*> NbdExports::find(const std::string& name) const {
    if (name.empty() && entries_.size() == 1) return &entries_.begin()->second;
    if (const auto found = entries_.find(name); found != entries_.end()) return &found->second;
    for (const auto& [id, entry] : entries_) {
        if (!name.empty() && entry.name == name) return &entry;
    }
    return fail(Errc::kNotFound, "no volume of that name is attached by NBD");
}

front::nbd::ExportInfo NbdExports::info_of(const Entry& entry) {
    return front::nbd::ExportInfo{entry.id, entry.name, entry.geometry};
}

io::Task<Result<front::nbd::ExportInfo>> NbdExports::describe(const std::string& name) {
    const auto found = find(name);
    if (!found) co_return fail(found.error());
    co_return info_of(**found);
}

io::Task<Result<front::nbd::Export>> NbdExports::open(const std::string& name) {
    const auto found = find(name);
    if (!found) co_return fail(found.error());
    const Entry& entry = **found;
    front::nbd::Export opened;
    opened.info = info_of(entry);
    opened.device = entry.device;
    opened.home = entry.home;
    opened.buffers = entry.buffers;
    co_return std::move(opened);
}

}  // namespace ublkd::daemon
