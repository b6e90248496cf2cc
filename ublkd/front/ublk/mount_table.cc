#include "ublkd/front/ublk/mount_table.h"

#include <algorithm>
#include <fstream>
#include <sstream>

namespace ublkd::front::ublk {
namespace {

/// The kernel writes blanks and backslashes as "\040".
std::string unescaped(const std::string& text) {
    std::string plain;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool escape = text[i] == '\\' && i + 3 < text.size();
        plain += escape ? static_cast<char>(std::stoi(text.substr(i + 1, 3), nullptr, 8)) : text[i];
        if (escape) i += 3;
    }
    return plain;
}

bool lies_in(const std::string& path, const std::string& folder) {
    return folder == "/" || path == folder || path.starts_with(folder + "/");
}

}  // namespace

std::vector<Mount> parse_mounts(std::istream& table) {
    std::vector<Mount> mounts;
    for (std::string line; std::getline(table, line);) {
        std::istringstream fields(line);
        Mount mount;
        std::string root, place;
        if (!(fields >> mount.id >> mount.parent >> mount.numbers >> root >> place)) continue;
        mount.root = unescaped(root);
        mount.place = unescaped(place);
        for (std::string word; fields >> word && word != "-";) {  // of the mount, and tags
        }
        std::string source;
        fields >> mount.type >> source >> mount.options;
        mounts.push_back(std::move(mount));
    }
    return mounts;
}

std::vector<Mount> mounts_of(const std::string& pid) {
    std::ifstream table("/proc/" + pid + "/mountinfo");
    return parse_mounts(table);
}

const Mount* mount_at(const std::vector<Mount>& mounts, const std::string& path) {
    // As the kernel walks: from a mount to the one on it that comes first on the way.
    const auto is_there = [&mounts](int id) {
        return std::ranges::any_of(mounts, [id](const Mount& mount) { return mount.id == id; });
    };
    const Mount* at = nullptr;
    for (const Mount& mount : mounts) {
        if (mount.place == "/" && (mount.parent == mount.id || !is_there(mount.parent)))
            at = &mount;
    }
    for (const Mount* next = at; next != nullptr;) {
        at = next;
        next = nullptr;
        for (const Mount& mount : mounts) {
            const bool on_the_way = mount.parent == at->id && mount.id != at->id &&
                                    lies_in(mount.place, at->place) && lies_in(path, mount.place);
            if (on_the_way && (next == nullptr || mount.place.size() < next->place.size()))
                next = &mount;
        }
    }
    return at;
}

}  // namespace ublkd::front::ublk
