// Goal: a disk that is really full gives kNoSpace, the replica stays in service, and goes on when
// there is room again. Method: a small tmpfs in a mount namespace of a child process (as root, or
// in a user namespace of its own).
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "ublkd/io/aligned_memory.h"
#include "ublkd/io/buffer_pool.h"
#include "ublkd/io/reactor.h"
#include "ublkd/store/pool.h"
#include "ublkd/store/replica_store.h"

namespace ublkd::store {
namespace {

void expect(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "%s\n", what);
    std::_Exit(1);
}

[[noreturn]] void fill_a_disk(const std::string& folder) {
    const int flags = CLONE_NEWNS | (geteuid() == 0 ? 0 : CLONE_NEWUSER);
    expect(unshare(flags) == 0, "a mount namespace (this test needs root or user namespaces)");
    expect(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0, "private mounts");
    expect(mount("none", folder.c_str(), "tmpfs", 0, "size=1m") == 0, "a tmpfs of 1 MiB");
    const auto reactor = std::move(*io::Reactor::create());
    const auto buffers = std::move(*io::BufferPool::create(kMiB));
    const auto pool = std::move(
        *Pool::create(folder + "/pool", PoolConfig{.id = {}, .domain = "", .buffered = true}));
    const ReplicaConfig config{.volume = VolumeId(1),
                               .incarnation = ReplicaId(2),
                               .size_bytes = 8 * kMiB,
                               .direct = false};
    auto made = reactor->run_until_complete(ReplicaStore::create(
        reactor.get(), buffers.get(), pool->replica_folder(ReplicaId(2)), config));
    expect(made.has_value(), "a replica, sparse");
    ReplicaStore& store = **made;
    const io::AlignedMemory memory(kDirtyUnitBytes);
    std::uint64_t at = 0;
    Result<void> written;
    while (written && at < config.size_bytes) {
        written = reactor->run_until_complete(store.write(at, memory.span(), {}));
        if (written) at += kDirtyUnitBytes;
    }
    expect(!written && written.error().code == Errc::kNoSpace, "the disk is full: kNoSpace");
    expect(at > 0, "some of it was written");
    expect(!store.failed(), "the replica stays in service");
    expect(reactor->run_until_complete(store.flush()).has_value(), "what was written is flushed");
    expect(
        reactor->run_until_complete(store.discard(Range{0, 2 * kDirtyUnitBytes}, {})).has_value(),
        "a discard");
    expect(reactor->run_until_complete(store.write(at, memory.span(), {})).has_value(),
           "there is room again");
    expect(pool->space()->available_bytes() < kMiB, "the pool knows what the file system has left");
    std::_Exit(0);
}

TEST(FullDisk, GivesNoSpaceAndTheReplicaGoesOnWhenThereIsRoom) {
    char folder[] = "/tmp/ublkd-full.XXXXXX";
    ASSERT_NE(mkdtemp(folder), nullptr);
    EXPECT_EXIT(fill_a_disk(folder), testing::ExitedWithCode(0), "");
    rmdir(folder);
}

}  // namespace
}  // namespace ublkd::store
