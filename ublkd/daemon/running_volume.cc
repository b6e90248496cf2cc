#include "ublkd/daemon/running_volume.h"

#include "ublkd/base/check.h"

namespace ublkd::daemon {

Result<std::shared_ptr<RunningVolume>> RunningVolume::start(
    const Core& core, const metadata::VolumeRecord& record,
    std::vector<volume::ReplicaPlace> places, volume::VolumeEvents* events) {
    volume::VolumeConfig config;
    config.id = record.id;
    config.size_bytes = record.size_bytes;
    config.logical_block_bytes = record.block_bytes;
    config.durability = record.durability == metadata::Durability::kWrite
                            ? volume::Durability::kWrite
                            : volume::Durability::kFlush;
    config.on_full =
        record.on_full == metadata::OnFull::kFail ? volume::OnFull::kFail : volume::OnFull::kWait;
    config.replicas = std::move(places);
    config.run_dir = core.configuration->run_dir;
    config.boot_id = core.boot_id;
    config.copy_bytes_per_second = core.configuration->resync_mib_s * kMiB;
    std::shared_ptr<RunningVolume> made(new RunningVolume(&core.engine->lane_of(record.id)));
    if (core.identity->cluster()) {
        volume::ClusterConfig cluster;
        cluster.id = core.identity->cluster();
        cluster.self = core.identity->host();
        cluster.connect = [hosts = core.hosts](io::Socket* into, io::Reactor* reactor, HostId host,
                                               io::Clock::time_point deadline) {
            return hosts->connect(into, reactor, host, deadline);
        };
        made->own_ = peer::Hello{.cluster = cluster.id,
                                 .host = cluster.self,
                                 .volume = record.id,
                                 .boot_id = core.boot_id,
                                 .attachment = {}};
        config.cluster = std::move(cluster);
    }
    Lane& lane = made->lane();
    auto started = io::run_on(lane.reactor(), [&] {
        return volume::Volume::start(&lane.reactor(), lane.volume_buffers.get(), config,
                                     core.authority_client, events);
    });
    if (!started) return fail(started.error());
    made->volume_ = std::move(*started);
    made->configured_on_full_ = config.on_full;
    made->durability_ = record.durability;
    // What a former daemon had attached may have requests that the kernel sends again.
    if (record.state == metadata::VolumeState::kAvailable) made->front_ended();
    return made;
}

RunningVolume::~RunningVolume() {
    CHECK(!volume_, "stop() comes before the end of a RunningVolume");
}

namespace {

io::Task<Result<void>> stop_and_end(std::unique_ptr<volume::Volume>* volume,
                                    volume::Retries retries) {
    if (!*volume) co_return Result<void>();
    auto stopping = (*volume)->stop(retries);
    const auto stopped = co_await stopping;
    volume->reset();
    co_return stopped;
}

io::Task<Result<volume::VerifyReport>> verify_if_running(std::unique_ptr<volume::Volume>* volume,
                                                         volume::OnDifference on_difference) {
    if (!*volume) co_return fail(Errc::kClosed, "the volume was stopped");
    auto verifying = (*volume)->verify(on_difference);
    co_return co_await verifying;
}

io::Task<Result<void>> answer_and_accept(std::unique_ptr<volume::Volume>* volume,
                                         io::Reactor* reactor, io::SocketInTransit* given,
                                         peer::Greeted* greeted, const peer::Hello* own) {
    io::Socket socket(*reactor, std::move(*given));
    auto answering =
        peer::answer_hello(&socket, greeted, *own, io::Clock::now() + std::chrono::seconds(2));
    CO_TRY(co_await answering);
    if (!*volume) co_return fail(Errc::kClosed, "the volume was stopped");
    (*volume)->accept(std::move(socket), std::move(*greeted));
    co_return Result<void>{};
}

io::Task<Result<void>> set_if_running(std::unique_ptr<volume::Volume>* volume,
                                      std::vector<AttachmentId>* wanted,
                                      std::vector<AttachmentId>* taken_off) {
    if (!*volume) co_return fail(Errc::kClosed, "the volume was stopped");
    auto setting = (*volume)->set_attachments(std::move(*wanted), std::move(*taken_off),
                                              io::Clock::now() + std::chrono::seconds(5));
    co_return co_await setting;
}

io::Task<Result<void>> open_if_running(std::unique_ptr<volume::Volume>* volume,
                                       volume::ReplicaPlace* place) {
    if (!*volume) co_return fail(Errc::kClosed, "the volume was stopped");
    auto opening = (*volume)->open_replica(std::move(*place));
    co_return co_await opening;
}

io::Task<Result<void>> add_if_running(std::unique_ptr<volume::Volume>* volume,
                                      volume::ReplicaPlace* place) {
    if (!*volume) co_return fail(Errc::kClosed, "the volume was stopped");
    auto adding = (*volume)->add_replica(std::move(*place));
    co_return co_await adding;
}

}  // namespace

Result<void> RunningVolume::stop() {
    return io::run_on(lane_->reactor(), [this] { return stop_and_end(&volume_, retries_); });
}

void RunningVolume::fail_when_full(bool fail) {
    call_on(lane_->reactor(), [&] {
        if (volume_) volume_->set_on_full(fail ? volume::OnFull::kFail : configured_on_full_);
    });
}

void RunningVolume::set_on_full(volume::OnFull on_full) {
    lane_->reactor().post([self = shared_from_this(), on_full] {
        self->configured_on_full_ = on_full;
        if (self->volume_) self->volume_->set_on_full(on_full);
    });
}

void RunningVolume::end_verify() {
    call_on(lane_->reactor(), [this] {
        if (volume_) volume_->end_verify();
    });
}

Result<volume::VolumeStatus> RunningVolume::status() {
    auto answer = lane_->ask([self = shared_from_this()]() -> std::optional<volume::VolumeStatus> {
        if (!self->volume_) return std::nullopt;
        return self->volume_->status();
    });
    if (!answer) return fail(answer.error());
    if (!*answer) return fail(Errc::kClosed, "the volume was stopped");
    return std::move(**answer);
}

Result<replication::HostReport> RunningVolume::known() {
    auto answer =
        lane_->ask([self = shared_from_this()]() -> std::optional<replication::HostReport> {
            if (!self->volume_) return std::nullopt;
            return self->volume_->known();
        });
    if (!answer) return fail(answer.error());
    if (!*answer) return fail(Errc::kClosed, "the volume was stopped");
    return std::move(**answer);
}

void RunningVolume::try_disks(PoolId pool) {
    lane_->reactor().post([self = shared_from_this(), pool] {
        if (self->volume_) self->volume_->try_disks(pool);
    });
}

void RunningVolume::close_replica(ReplicaId replica) {
    lane_->reactor().post([self = shared_from_this(), replica] {
        if (self->volume_) self->volume_->close_replica(replica);
    });
}

Result<void> RunningVolume::accept(io::SocketInTransit socket, peer::Greeted greeted) {
    return io::run_on(lane_->reactor(), [&] {
        return answer_and_accept(&volume_, &lane_->reactor(), &socket, &greeted, &own_);
    });
}

unsigned RunningVolume::connections_of_others() {
    return call_on(lane_->reactor(),
                   [this] { return volume_ ? volume_->connections_of_others() : 0u; });
}

Result<void> RunningVolume::set_attachment(AttachmentId attachment, volume::Retries of_former) {
    return call_on(lane_->reactor(), [&] {
        return volume_ ? volume_->set_attachment(attachment, of_former) : Result<void>();
    });
}

Result<void> RunningVolume::set_attachments(std::vector<AttachmentId> wanted,
                                            std::vector<AttachmentId> taken_off) {
    return io::run_on(lane_->reactor(),
                      [&] { return set_if_running(&volume_, &wanted, &taken_off); });
}

void RunningVolume::take_over(std::set<ReplicaId> but) {
    lane_->reactor().post([self = shared_from_this(), but = std::move(but)] {
        if (self->volume_) self->volume_->take_over(but);
    });
}

Result<void> RunningVolume::let_go(ReplicaId replica, std::uint64_t number) {
    return call_on(lane_->reactor(), [&]() -> Result<void> {
        if (!volume_) return fail(Errc::kClosed, "the volume was stopped");
        return volume_->let_go(replica, number);
    });
}

Result<void> RunningVolume::open_replica(volume::ReplicaPlace place) {
    return io::run_on(lane_->reactor(), [&] { return open_if_running(&volume_, &place); });
}

Result<void> RunningVolume::add_replica(volume::ReplicaPlace place) {
    return io::run_on(lane_->reactor(), [&] { return add_if_running(&volume_, &place); });
}

Result<volume::VerifyReport> RunningVolume::verify(volume::OnDifference on_difference) {
    return io::run_on(lane_->reactor(), [&] { return verify_if_running(&volume_, on_difference); });
}

}  // namespace ublkd::daemon
