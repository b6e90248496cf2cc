// One host for tests of a volume: pools as temporary folders, an authority in a file (so that it
// outlives processes), and a volume on a reactor of this thread. Children that die are forked from
// here; what they wrote stays.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/suites/found_volume.h"
#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/io/buffer_pool.h"
#include "ublkd/io/reactor.h"
#include "ublkd/replication/authority_client.h"
#include "ublkd/volume/volume.h"

namespace ublkd::test {

constexpr std::byte operator""_b(unsigned long long value) { return static_cast<std::byte>(value); }

/// The authority over one file. `away`: it can't be asked. `deaf`: it answers no proposal.
/// `lose_answers`: decides, then the answer is lost. `retired`: the volume is deleted, and all is
/// declined.
class FileAuthority final : public replication::AuthorityClient {
  public:
    explicit FileAuthority(std::string path) : path_(std::move(path)) {}
    int away = 0;
    int lose_answers = 0;
    bool deaf = false;
    int proposals = 0;
    bool retired = false;
    ReplicaId barred;  // never joins

    std::optional<replication::Membership> load() const {
        std::ifstream file(path_, std::ios::binary);
        if (!file) return std::nullopt;
        const std::string text((std::istreambuf_iterator<char>(file)), {});
        const auto record = replication::decode_membership(std::as_bytes(std::span(text)));
        CHECK(record.has_value(), "the test's authority reads what it wrote");
        return *record;
    }
    void save(const replication::Membership& record) const {
        const auto bytes = replication::encode(record);
        {
            std::ofstream file(path_ + ".new", std::ios::binary);
            file.write(reinterpret_cast<const char*>(bytes.data()),
                       static_cast<std::streamsize>(bytes.size()));
        }
        std::filesystem::rename(path_ + ".new", path_);
    }
    io::Task<Result<std::optional<replication::Membership>>> current(VolumeId) override {
        if (away > 0) co_return fail(Errc::kTimedOut, "the authority is away");
        co_return load();
    }
    io::Task<Result<replication::ProposalOutcome>> propose(
        replication::Proposal proposal) override {
        ++proposals;
        co_await io::Reactor::current()->yield();
        if (deaf) co_return fail(Errc::kTimedOut, "the authority is away");
        if (away > 0) {
            --away;
            co_return fail(Errc::kTimedOut, "the authority is away");
        }
        replication::ProposalOutcome outcome;
        if (retired) {
            outcome.verdict = replication::Verdict::kDeclined;
            co_return outcome;
        }
        const auto held = load();
        outcome.verdict = replication::decide(held, proposal);
        const bool adds_barred = barred && proposal.next.has(barred);
        if (outcome.verdict == replication::Verdict::kAuthorized && adds_barred)
            outcome.verdict = replication::Verdict::kBarred;
        if (outcome.verdict == replication::Verdict::kAuthorized) save(proposal.next);
        outcome.current = *load();
        if (lose_answers > 0) {
            --lose_answers;
            co_return fail(Errc::kTimedOut, "the answer was lost");
        }
        co_return outcome;
    }

  private:
    std::string path_;
};

/// Where a world's pools lie: on a disk with O_DIRECT, or in memory, where a flush costs nothing
/// and what a process wrote outlives it just as well: for tests of many deaths.
enum class Disk { kReal, kMemory };

class World : public volume::VolumeEvents {
  public:
    explicit World(std::size_t replicas, std::uint64_t size_bytes = 64 * kMiB,
                   Disk disk = Disk::kReal)
        : in_memory_(disk == Disk::kMemory && std::filesystem::is_directory("/dev/shm")) {
        const char* const base = in_memory_ ? "/dev/shm" : std::getenv("TMPDIR");
        folder_ = std::string(base != nullptr ? base : "/var/tmp") + "/ublkd-volume.XXXXXX";
        CHECK(mkdtemp(folder_.data()) != nullptr, "a temporary folder");
        std::filesystem::create_directory(folder_ + "/run");
        authority = std::make_unique<FileAuthority>(folder_ + "/authority");
        config.id = VolumeId::random();
        config.size_bytes = size_bytes;
        config.run_dir = folder_ + "/run";
        config.boot_id[0] = std::byte{1};
        for (std::size_t i = 0; i < replicas; ++i) config.replicas.push_back(new_place());
    }
    ~World() override {
        if (volume) (void)run(volume->stop());
        volume.reset();
        faults::disarm_all();
        std::error_code ignored;
        std::filesystem::remove_all(folder_, ignored);
    }

    volume::ReplicaPlace new_place() {
        const std::string pool = folder_ + "/pool" + std::to_string(pools_++);
        std::filesystem::create_directory(pool);
        const auto id = ReplicaId::random();
        return {.member = {.replica = id, .host = HostId(1), .pool = PoolId(pools_)},
                .folder = pool + "/" + id.to_string(),
                .budget = {},
                .direct = !in_memory_};
    }

    /// The reactor is made on first use, so that a parent that only forks has none.
    io::Reactor& reactor() {
        if (!reactor_) {
            auto made = io::Reactor::create();
            CHECK(made.has_value(), "a reactor");
            reactor_ = std::move(*made);
            auto pool = io::BufferPool::create(16 * kMiB);
            CHECK(pool.has_value(), "buffers");
            buffers_ = std::move(*pool);
        }
        return *reactor_;
    }
    template <class T>
    T run(io::Task<T> task) {
        return reactor().run_until_complete(std::move(task));
    }

    Result<void> create() {
        reactor();
        return run(suites::found_volume(reactor_.get(), buffers_.get(), config, authority.get()));
    }
    Result<void> start() {
        reactor();
        auto started = run(
            volume::Volume::start(reactor_.get(), buffers_.get(), config, authority.get(), this));
        if (!started) return fail(started.error());
        volume = std::move(*started);
        return {};
    }
    Result<void> stop() {
        const auto result = run(volume->stop());
        volume.reset();
        return result;
    }
    void close_reactor() {
        CHECK(!volume, "the volume is stopped first");
        buffers_.reset();
        reactor_.reset();
    }
    /// Serves until `done` holds; false where that takes longer than `seconds`.
    bool wait_until(const std::function<bool()>& done, int seconds = 10) {
        const auto end = io::Clock::now() + std::chrono::seconds(seconds);
        while (!done()) {
            if (io::Clock::now() > end) return false;
            run(nap());
        }
        return true;
    }
    io::Task<void> nap() { co_await reactor().sleep_for(std::chrono::milliseconds(2)); }

    Result<void> write(std::uint64_t offset_bytes, std::byte value, std::size_t bytes = kPageBytes,
                       block::WriteOptions options = {}) {
        auto buffer = buffer_of(bytes);
        std::fill(buffer.span().begin(), buffer.span().end(), value);
        return run(volume->write(offset_bytes, buffer.span(), options));
    }
    /// The value of all bytes of the range, or nullopt where they differ or can't be read.
    std::optional<std::byte> read(std::uint64_t offset_bytes, std::size_t bytes = kPageBytes) {
        auto buffer = buffer_of(bytes);
        if (!run(volume->read(offset_bytes, buffer.span()))) return std::nullopt;
        for (const std::byte value : buffer.span()) {
            if (value != buffer.span()[0]) return std::nullopt;
        }
        return buffer.span()[0];
    }
    io::Buffer buffer_of(std::size_t bytes) {
        reactor();
        return buffers_->try_acquire(bytes);
    }
    bool members_equal(std::uint64_t members) {
        const auto report = run(volume->verify());
        return report && report->members == members && report->equal();
    }
    void another_boot() {
        config.boot_id[0] = static_cast<std::byte>(std::to_integer<int>(config.boot_id[0]) + 1);
    }

    /// Runs `work` in a child process, which dies in it (SIGKILL at a fault point) or ends without
    /// stopping the volume. True: it died by SIGKILL.
    bool die_in(const std::function<void()>& work) {
        CHECK(!reactor_, "a reactor is not shared with a child");
        std::fflush(nullptr);
        const pid_t child = fork();
        CHECK(child >= 0, "fork");
        if (child == 0) {
            work();
            _exit(0);
        }
        int status = 0;
        CHECK(waitpid(child, &status, 0) == child, "waitpid");
        CHECK(WIFSIGNALED(status) || WEXITSTATUS(status) == 0, "the child does not fail by itself");
        return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    }

    // Events.
    void membership_changed(VolumeId, const replication::Membership& record) override {
        records.push_back(record);
    }
    void member_lost(VolumeId, const replication::Member& member, const Error& cause) override {
        lost.emplace_back(member.replica, cause);
    }
    void sync_finished(VolumeId, ReplicaId replica, std::uint64_t copied) override {
        joined.push_back(replica);
        copied_bytes = copied;
    }
    void trouble(VolumeId, const std::string&) override { ++troubles; }

    volume::VolumeConfig config;
    std::unique_ptr<FileAuthority> authority;
    std::unique_ptr<volume::Volume> volume;
    std::vector<replication::Membership> records;
    std::vector<std::pair<ReplicaId, Error>> lost;
    std::vector<ReplicaId> joined;
    std::uint64_t copied_bytes = 0;
    int troubles = 0;
    io::BufferPool* buffers() { return buffers_.get(); }
    const std::string& folder() const { return folder_; }

  private:
    bool in_memory_;
    std::string folder_;
    std::size_t pools_ = 0;
    std::unique_ptr<io::Reactor> reactor_;
    std::unique_ptr<io::BufferPool> buffers_;
};

}  // namespace ublkd::test
