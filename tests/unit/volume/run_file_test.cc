// What a volume keeps in a run folder that is full. Method: a small tmpfs in a mount namespace
// of a child process (as root, or in a user namespace of its own).
#include "ublkd/volume/run_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "ublkd/base/units.h"

namespace ublkd::volume {
namespace {

using replication::AppliedIds;
using replication::RequestId;

void expect(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "%s\n", what);
    std::_Exit(1);
}

void fill(const std::string& folder) {
    const std::vector<char> page(kPageBytes, 'x');
    const int fd = open((folder + "/filler").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    while (write(fd, page.data(), page.size()) > 0) {
    }
    close(fd);
}

/// Touches all of it: without room that is a SIGBUS.
void use(const RunFile& file) {
    AppliedIds ids(&file.as<KeptIds>()->table);
    for (std::uint64_t client = 1; client <= AppliedIds::kClients; ++client) {
        for (std::uint64_t sequence = 1; sequence <= AppliedIds::kWindow; ++sequence)
            ids.note_applied(RequestId{client, sequence}, Range{0, kSectorBytes});
    }
    expect(ids.applied(RequestId{AppliedIds::kClients, 1}), "what was noted is known");
}

[[noreturn]] void fill_the_run_folder(const std::string& folder) {
    const int flags = CLONE_NEWNS | (geteuid() == 0 ? 0 : CLONE_NEWUSER);
    expect(unshare(flags) == 0, "a mount namespace (this test needs root or user namespaces)");
    expect(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0, "private mounts");
    expect(mount("none", folder.c_str(), "tmpfs", 0, "size=1m") == 0, "a tmpfs of 1 MiB");
    {
        const auto first = RunFile::ids_of(folder, VolumeId(1), ReplicaId(1));
        expect(first.has_value(), "room for one");
        fill(folder);
        use(*first);
        const auto second = RunFile::ids_of(folder, VolumeId(1), ReplicaId(2));
        expect(!second && second.error().code == Errc::kNoSpace, "no room for another: kNoSpace");
    }
    const auto again = RunFile::ids_of(folder, VolumeId(1), ReplicaId(1));
    expect(again.has_value(), "the one that is there can be opened");
    expect(AppliedIds(&again->as<KeptIds>()->table).applied(RequestId{1, 1}),
           "it has what was noted");
    use(*again);
    again->remove();
    const auto second = RunFile::ids_of(folder, VolumeId(1), ReplicaId(2));
    expect(!second, "it keeps its room while it is mapped");
    std::_Exit(0);
}

TEST(RunFile, TakesItsRoomWhenItIsMadeSoThatAFullFolderIsAnError) {
    char folder[] = "/tmp/ublkd-ids.XXXXXX";
    ASSERT_NE(mkdtemp(folder), nullptr);
    EXPECT_EXIT(fill_the_run_folder(folder), testing::ExitedWithCode(0), "");
    rmdir(folder);
}

TEST(RunFile, AreRemovedWithTheirVolume) {
    char folder[] = "/tmp/ublkd-ids.XXXXXX";
    ASSERT_NE(mkdtemp(folder), nullptr);
    for (const std::uint64_t volume : {1u, 2u}) {
        for (const std::uint64_t replica : {1u, 2u})
            ASSERT_TRUE(RunFile::ids_of(folder, VolumeId(volume), ReplicaId(replica)));
    }
    RunFile::remove_all(folder, VolumeId(1));
    std::vector<std::string> left;
    for (const auto& entry : std::filesystem::directory_iterator(folder))
        left.push_back(entry.path().filename());
    EXPECT_EQ(left.size(), 2u);
    for (const auto& name : left)
        EXPECT_TRUE(name.starts_with("ids-" + VolumeId(2).to_string())) << name;
    std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace ublkd::volume
