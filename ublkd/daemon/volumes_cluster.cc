// Volumes whose members and clients are on several hosts: what this host does for the others. Hosts
// agree by the metadata alone; a word over the data port (peer::kWordOnly) says that there is
// something new in it, and where the word is lost the next round finds it.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "ublkd/base/log.h"
#include "ublkd/daemon/volumes.h"

namespace ublkd::daemon {

using api::ApiResult;
using api::refuse;
using metadata::AttachmentRecord;
using metadata::AttachmentState;
using metadata::ReplicaRecord;
using metadata::ReplicaState;
using metadata::VolumeRecord;
using metadata::VolumeState;
using replication::Membership;

namespace {

constexpr auto kWordLimit = std::chrono::seconds(1);
constexpr auto kIdle = std::chrono::seconds(10);

io::Task<Result<void>> say_word(HostDirectory* hosts, io::Reactor* reactor, HostId host,
                                const peer::Hello* word) {
    const auto limit = io::Clock::now() + kWordLimit;
    io::Socket socket;
    auto connecting = hosts->connect(&socket, reactor, host, limit);
    CO_TRY(co_await connecting);
    auto saying = peer::greet(&socket, *word, limit);
    const auto heard = co_await saying;
    if (!heard) co_return fail(heard.error());
    if (heard->other.host != host)
        co_return fail(Errc::kProtocol, "another host than was looked for");
    co_return Result<void>{};
}

io::Task<void> answer_word(io::Reactor* reactor, io::SocketInTransit* given, peer::Greeted* greeted,
                           const peer::Hello* own) {
    io::Socket socket(*reactor, std::move(*given));
    auto answering = peer::answer_hello(&socket, greeted, *own, io::Clock::now() + kWordLimit);
    (void)co_await answering;
}

io::Task<void> refuse_peer(io::Reactor* reactor, io::SocketInTransit* given, peer::Reason reason) {
    io::Socket socket(*reactor, std::move(*given));
    peer::refuse(&socket, reason);
    co_return;
}

}  // namespace

bool Volumes::is_clustered() const { return static_cast<bool>(core_.identity->cluster()); }

HostId Volumes::host_of_primary(const Membership& record) {
    for (const auto& member : record.members) {
        if (member.replica == record.primary) return member.host;
    }
    return {};
}

bool Volumes::has_primary_here(const Membership& record) const {
    return !is_clustered() || host_of_primary(record) == core_.identity->host();
}

bool Volumes::has_member_here(const Membership& record) const {
    return std::ranges::any_of(record.members, [this](const auto& member) {
        return member.host == core_.identity->host();
    });
}

/// Its primary's host looks after a volume; before it has one, and when it has none any more, its
/// home does.
bool Volumes::is_mine(const VolumeRecord& volume) {
    if (!core_.identity->initialized()) return false;
    if (!is_clustered()) return true;
    if (volume.state != VolumeState::kCreating && volume.state != VolumeState::kDeleting) {
        const auto record = core_.authority->current(volume.id);
        return record && *record && has_primary_here(**record);
    }
    return volume.home == core_.identity->host() || !volume.home;
}

bool Volumes::is_mine(const AttachmentRecord& attachment) {
    if (!core_.identity->initialized()) return false;
    if (!is_clustered()) return true;
    const auto instance = core_.store->get<metadata::InstanceRecord>(attachment.instance);
    return instance && *instance && (*instance)->host == core_.identity->host();
}

ApiResult<void> Volumes::check_here(const metadata::InstanceRecord& instance,
                                    const std::string& what) {
    if (instance.host == core_.identity->host()) return {};
    return refuse("IncorrectState",
                  fmt::format("instance {} is on host {}: {} there", instance.id.to_string(),
                              name_of_host(instance.host), what));
}

ApiResult<void> Volumes::check_here(const AttachmentRecord& attachment, const std::string& what) {
    const auto instance = core_.store->get<metadata::InstanceRecord>(attachment.instance);
    if (!instance) return refuse(instance.error(), "cannot look up the instance");
    if (!*instance) return {};
    return check_here(**instance, what);
}

peer::Hello Volumes::word_of(VolumeId volume) const {
    return {.features = peer::kWordOnly,
            .required = peer::kWordOnly,
            .cluster = core_.identity->cluster(),
            .host = core_.identity->host(),
            .volume = volume,
            .boot_id = core_.boot_id,
            .attachment = {}};
}

Result<void> Volumes::tell_host(HostId host, VolumeId volume) {
    if (!is_clustered() || host == core_.identity->host()) return {};
    const peer::Hello word = word_of(volume);
    Lane& lane = core_.engine->lane_of(volume);
    return io::run_on(lane.reactor(),
                      [&] { return say_word(core_.hosts, &lane.reactor(), host, &word); });
}

/// Its id where it has none that is known.
std::string Volumes::name_of_host(HostId host) {
    if (host == core_.identity->host()) return core_.configuration->host_name;
    (void)core_.hosts->knows(host);  // one that came just now
    const std::string name = core_.hosts->name_of(host);
    return name.empty() ? host.to_string() : name;
}

/// By a word about a volume that is none: that is refused, by who is there.
bool Volumes::answers(HostId host) {
    if (!core_.hosts->knows(host)) return false;
    const auto told = tell_host(host, VolumeId(1));
    return told || std::string_view(told.error().where) == peer::to_string(peer::Reason::kVolume);
}

bool Volumes::is_away(HostId host) {
    return is_clustered() && host != core_.identity->host() && !answers(host);
}

/// The primary's host, or, where that does not answer, those of the other members.
void Volumes::tell_members(VolumeId volume) {
    const auto record = core_.authority->current(volume);
    if (!record || !*record) return;
    const HostId primary = host_of_primary(**record);
    if (tell_host(primary, volume)) return;
    for (const auto& member : (*record)->members) {
        if (member.host != primary) (void)tell_host(member.host, volume);
    }
}

/// Replicas that another host wants here, made and asked for; who gets no place is discarded.
void Volumes::prepare_wanted(const SlotRef& slot, const VolumeRecord& volume) {
    const Operation operation(slot->operation, std::try_to_lock);
    if (!operation.owns_lock()) return;                // that is being done
    if (!core_.authority->current(volume.id)) return;  // frozen: it may be there already (R16)
    const auto replicas = core_.store->list<ReplicaRecord>(metadata::where("volume", volume.id));
    for (const auto& replica : replicas ? *replicas : std::vector<ReplicaRecord>()) {
        if (replica.state != ReplicaState::kPreparing) continue;
        auto place = core_.pools->place(replica.pool, replica.id);
        if (!place || place->member.host != core_.identity->host() ||
            holds_a_place(volume.id, replica))
            continue;
        std::vector<Candidate> candidates{{std::move(*place), {}, {}, false}};
        prepare_candidates(core_, volume, candidates);
        std::vector<unsigned> places;
        const auto first = static_cast<unsigned>(replica.id.value() % volume.replica_count);
        for (unsigned i = 0; i < volume.replica_count; ++i)
            places.push_back((first + i) % volume.replica_count);
        for (unsigned i = volume.replica_count; i < places_now(volume); ++i) places.push_back(i);
        ask_for_places(core_, volume, places, candidates);
        if (candidates[0].granted) continue;
        if (candidates[0].error)
            log::warn("pool {}: {}", replica.pool.to_string(), to_string(*candidates[0].error));
        discard_replica(core_, replica.id, replica.pool);
    }
}

/// Waits until each candidate of another host has a place, or gets none.
void Volumes::await_places(const VolumeRecord& volume, std::vector<Candidate>& candidates) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    for (bool told = false;; told = true) {
        bool open = false;
        for (Candidate& candidate : candidates) {
            const auto& member = candidate.place.member;
            if (member.host == core_.identity->host() || candidate.granted || candidate.error)
                continue;
            if (!told) (void)tell_host(member.host, volume.id);  // its next round finds it too
            const auto record = core_.store->get<ReplicaRecord>(member.replica);
            unsigned taken = 0;
            for (unsigned place = 0; place < metadata::place_limit(volume); ++place) {
                const auto permission =
                    core_.store->get<metadata::PermissionRecord>(place_name(volume.id, place));
                const bool held = permission && *permission && (*permission)->host;
                if (held && (*permission)->incarnation == member.replica) candidate.granted = place;
                taken += held ? 1 : 0;
            }
            const bool all_taken = taken >= places_now(volume);
            const bool gone = record && (!*record || (*record)->state == ReplicaState::kRemoving);
            if (candidate.granted || all_taken) continue;
            if (gone) candidate.error = Error{Errc::kIo, 0, "its host could not prepare it"};
            open = open || !gone;
        }
        if (!open) return;
        if (std::chrono::steady_clock::now() >= deadline) break;
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    for (Candidate& candidate : candidates) {
        if (!candidate.granted && !candidate.error)
            candidate.error = Error{Errc::kTimedOut, 0, "its host does not answer"};
    }
}

/// R15: the record gets the attachments that the metadata has. The primary's host does that, and
/// starts the volume where somebody is to be admitted; what was forced off is gone when it is
/// fenced. Where that host does not answer, another member's takes the volume over for it (R6).
void Volumes::settle_sessions(const SlotRef& slot, const VolumeRecord& volume) {
    const auto attachments =
        core_.store->list<AttachmentRecord>(metadata::where("volume", volume.id));
    const auto record = core_.authority->current(volume.id);
    if (!attachments || !record || !*record) return;
    std::vector<AttachmentId> wanted;
    std::vector<AttachmentRecord> forced_off;
    for (const auto& attachment : *attachments) {
        if (attachment.state == AttachmentState::kDetaching && attachment.detach_forced)
            forced_off.push_back(attachment);
        else
            wanted.push_back(attachment.id);
    }
    auto now = (*record)->attachments;
    std::ranges::sort(now);
    std::ranges::sort(wanted);
    if (now == wanted && forced_off.empty()) return;
    const bool nobody_new = std::ranges::includes(now, wanted) && forced_off.empty();
    if (!has_primary_here(**record)) {
        if (!nobody_new) take_over_if_away(slot, volume, **record);
        return;
    }
    auto running = [&] {
        const std::lock_guard state(slot->state);
        return slot->running;
    }();
    if (!running && nobody_new) return;
    if (!running) running = try_to_serve(slot, volume);
    if (!running) return;
    std::vector<AttachmentId> taken_off;
    for (const auto& attachment : forced_off) taken_off.push_back(attachment.id);
    const auto set = running->set_attachments(wanted, taken_off);
    if (!set && set.error().code != Errc::kBusy)
        log::warn("volume {}: its attachments: {}", volume.id.to_string(), to_string(set.error()));
    for (const auto& attachment : forced_off) {
        // This host's own ends with its front end.
        if (set && !is_mine(attachment)) forget_fenced(attachment);
    }
}

void Volumes::forget_fenced(const AttachmentRecord& attachment) {
    if (const auto erased = erase_attachment(attachment); !erased) {
        log::warn("attachment {}: {}", attachment.id.to_string(), to_string(erased.error()));
        return;
    }
    core_.events->add("volume.detached", attachment.volume.to_string(),
                      fmt::format("forced; {} is fenced", attachment.instance.to_string()));
}

/// Who has no record cannot take over: a member that was made for another host, and never used.
/// That has not acknowledged anything, and so nobody has who needs it to (the authority's record is
/// the first one still).
void Volumes::seal_members_here(const SlotRef& slot, const Membership& record) {
    if (record.number != 1) return;
    const std::lock_guard life(slot->life);
    {
        const std::lock_guard state(slot->state);
        if (slot->running) return;
    }
    for (const auto& member : record.members) {
        const auto place = core_.pools->place(member.pool, member.replica);
        if (!place || member.host != core_.identity->host()) continue;
        if (const auto sealed = seal_member(core_, record.volume, *place, record); !sealed)
            log::warn("replica {}: {}", member.replica.to_string(), to_string(sealed.error()));
    }
}

/// Of a volume whose primary is elsewhere, and with a member here.
void Volumes::take_over_if_away(const SlotRef& slot, const VolumeRecord& volume,
                                const Membership& record) {
    if (!has_member_here(record) || tell_host(host_of_primary(record), volume.id)) return;
    seal_members_here(slot, record);
    const auto running = try_to_serve(slot, volume);
    if (!running) return;
    log::warn("volume {}: the host of its primary does not answer: it is taken over",
              volume.id.to_string());
    running->take_over({});
}

/// A volume at rest does not notice that its primary's host has gone: where that has lasted a
/// member here becomes primary, and its host finds a degraded volume.
void Volumes::replace_away_primary(const SlotRef& slot, const VolumeRecord& volume) {
    const auto record = core_.authority->current(volume.id);
    if (volume.state != VolumeState::kAvailable || !record || !*record ||
        !has_member_here(**record))
        return;
    {
        const std::lock_guard state(slot->state);
        if (!slot->lost_since && Backoff::Clock::now() < slot->next_look) return;
    }
    if (has_lasted(slot, is_away(host_of_primary(**record))))
        take_over_if_away(slot, volume, **record);
}

/// Until the primary serves this attachment: it is in the authority's record.
Result<void> Volumes::await_session(const SlotRef& slot, const VolumeRecord& volume,
                                    const AttachmentRecord& attachment) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(15);
    for (;;) {
        TRY_ASSIGN(const auto record, core_.authority->current(attachment.volume));
        if (!record) return fail(Errc::kNotFound, "the volume's membership");
        if (std::ranges::find(record->attachments, attachment.id) != record->attachments.end())
            return {};
        if (ending_) return fail(Errc::kCancelled, "the daemon stops");
        if (std::chrono::steady_clock::now() >= deadline)
            return fail(Errc::kTimedOut, "the volume's primary did not admit the attachment");
        settle_sessions(slot, volume);
        tell_members(attachment.volume);
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
}

/// Replicas here that a primary elsewhere is about to bring in: it finds them open.
void Volumes::open_wanted(const SlotRef& slot, const VolumeRecord& volume) {
    const auto record = core_.authority->current(volume.id);
    const auto replicas = core_.store->list<ReplicaRecord>(metadata::where("volume", volume.id));
    if (!record || !*record || !replicas) return;
    for (const auto& replica : *replicas) {
        const bool comes =
            replica.state == ReplicaState::kReturning ||
            (replica.state == ReplicaState::kPreparing && holds_a_place(volume.id, replica));
        auto place = core_.pools->place(replica.pool, replica.id);
        if (!comes || (*record)->has(replica.id) || !place ||
            place->member.host != core_.identity->host())
            continue;
        const auto running = try_to_serve(slot, volume);
        if (!running) return;
        const auto opened = running->open_replica(std::move(*place));
        if (!opened && opened.error().code != Errc::kBusy)  // it is open
            log::warn("replica {}: {}", replica.id.to_string(), to_string(opened.error()));
    }
}

/// Of an attachment at another host, which may be gone: what it asks for is refused when this has
/// ended.
ApiResult<api::AttachmentView> Volumes::detach_elsewhere(const VolumeRecord& volume,
                                                         AttachmentRecord attachment) {
    attachment.detach_forced = true;
    if (const auto stored = set_state(attachment, AttachmentState::kDetaching); !stored)
        return refuse(stored.error(), "cannot store the detach of " + volume.id.to_string());
    auto view = attachment_view(attachment);
    const auto ref = slot(volume.id);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    for (;;) {
        settle_sessions(ref, volume);
        tell_members(volume.id);
        const auto left = core_.store->get<AttachmentRecord>(attachment.id);
        if (left && !*left) break;
        if (ending_ || std::chrono::steady_clock::now() >= deadline)
            return refuse("RequestTimeout",
                          fmt::format("{} is not fenced yet: no member of {} could take it off; "
                                      "that is tried again",
                                      attachment.instance.to_string(), volume.id.to_string()));
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    view.state = "detached";
    return view;
}

/// What the metadata wants of this host for the volume, now.
void Volumes::look_for_others(const VolumeRecord& volume) {
    const auto ref = slot(volume.id);
    if (!is_mine(volume)) {
        prepare_wanted(ref, volume);
        if (volume.state != VolumeState::kCreating) open_wanted(ref, volume);
        take_over_from_drained(ref, volume);
        replace_away_primary(ref, volume);
    }
    settle_sessions(ref, volume);
}

/// From another host, perhaps since a replica there could return now.
void Volumes::heed_word(const VolumeRecord& volume) {
    look_for_others(volume);
    if (!is_mine(volume)) return;
    const auto ref = slot(volume.id);
    {
        const std::lock_guard state(ref->state);
        ref->repair.reset();
    }
    changed_();
}

/// A replica here that was lost, as it was while this host did not answer: the primary's host tries
/// again when it hears of it, and not when its patience is over.
void Volumes::tell_of_lost(const VolumeRecord& volume) {
    if (is_mine(volume)) return;
    for (const auto& replica : lost_replicas(volume.id)) {
        const bool here = core_.pools->host_of_pool(replica.pool) == core_.identity->host();
        if (!here || !core_.pools->trouble_of(replica.pool).empty()) continue;
        tell_members(volume.id);
        return;
    }
}

/// Until nobody has asked for a while.
Result<std::shared_ptr<RunningVolume>> Volumes::start_for_others(const SlotRef& slot,
                                                                 const VolumeRecord& volume) {
    {
        const std::lock_guard state(slot->state);
        slot->asked_at = std::chrono::steady_clock::now();
        if (slot->serves_others && slot->running) return slot->running;
        if (slot->deleting || ending_) return fail(Errc::kClosed, "it ends");
    }
    TRY_ASSIGN(auto running, acquire(slot, volume));
    bool second = false;
    {
        const std::lock_guard state(slot->state);
        second = std::exchange(slot->serves_others, true);
    }
    if (second) {
        TRY(release(slot));
    }
    return running;
}

/// The same; nullptr, and logged, where it cannot be started.
std::shared_ptr<RunningVolume> Volumes::try_to_serve(const SlotRef& slot,
                                                     const VolumeRecord& volume) {
    auto running = start_for_others(slot, volume);
    if (running) return std::move(*running);
    log::warn("volume {}: {}", volume.id.to_string(), to_string(running.error()));
    return nullptr;
}

/// Started where a replica of it is here.
Result<std::shared_ptr<RunningVolume>> Volumes::serve_others(const SlotRef& slot,
                                                             const VolumeRecord& volume) {
    {
        const std::lock_guard state(slot->state);
        if (slot->running) return slot->running;
    }
    TRY_ASSIGN(const auto record, core_.authority->current(volume.id));
    if (!record || !has_member_here(*record))
        return fail(Errc::kNotFound, "nothing of the volume is here");
    return start_for_others(slot, volume);
}

void Volumes::post_peer(HeardPeer heard) {
    const auto given = std::make_shared<HeardPeer>(std::move(heard));
    worker_->submit([this, given] {
        peer_steps_.run(fmt::format("peer {}", ++peers_),
                        [this, given] { peer_connected(std::move(*given)); });
    });
}

void Volumes::end_peers() { peer_steps_.wait(); }

void Volumes::peer_connected(HeardPeer heard) {
    auto& [socket, greeted, proven] = heard;
    const VolumeId volume = greeted.other.volume;
    const HostId host = greeted.other.host;
    Lane& lane = core_.engine->lane_of(volume);
    bool known = greeted.other.cluster == core_.identity->cluster() && is_clustered() &&
                 host != core_.identity->host() && core_.hosts->knows(host);
    if (known && !core_.hosts->has_proven(host, proven)) {
        log::warn("a connection that says it is host {}'s has the certificate of {}",
                  core_.hosts->name_of(host),
                  api::shown(fmt::to_string(fmt::join(proven.uris, " "))));
        known = false;
    }
    const auto record = known ? core_.store->get<VolumeRecord>(volume)
                              : Result<std::optional<VolumeRecord>>(std::nullopt);
    if (record && *record && (greeted.other.required & peer::kWordOnly) != 0) {
        heed_word(**record);
        const peer::Hello word = word_of(volume);
        io::run_on(lane.reactor(),
                   [&] { return answer_word(&lane.reactor(), &socket, &greeted, &word); });
        return;
    }
    const auto refused = [&](peer::Reason reason) {
        io::run_on(lane.reactor(), [&] { return refuse_peer(&lane.reactor(), &socket, reason); });
    };
    if (!known) return refused(peer::Reason::kHost);
    if (!record || !*record) return refused(peer::Reason::kVolume);
    const AttachmentId attachment = greeted.other.attachment;
    const auto ref = slot(volume);
    const auto running = serve_others(ref, **record);
    if (!running) {
        log::info("volume {} is not served to {}: {}", volume.to_string(),
                  core_.hosts->name_of(host), to_string(running.error()));
        return refused(peer::Reason::kVolume);
    }
    if (const auto accepted = (*running)->accept(std::move(socket), std::move(greeted)); !accepted)
        log::info("volume {}: a connection of {}: {}", volume.to_string(),
                  core_.hosts->name_of(host), to_string(accepted.error()));
    if (attachment) settle_sessions(ref, **record);
}

std::vector<std::pair<VolumeId, Volumes::SlotRef>> Volumes::running_slots() {
    const std::lock_guard lock(mutex_);
    std::vector<std::pair<VolumeId, SlotRef>> running;
    for (const auto& [id, ref] : slots_) {
        const std::lock_guard state(ref->state);
        if (ref->running) running.emplace_back(id, ref);
    }
    return running;
}

/// A round: what no word told, and volumes that nobody else asks for any more.
void Volumes::look_after_others() {
    if (!is_clustered()) return;
    (void)core_.hosts->refresh();
    const auto running = running_slots();  // before the list: what it lacks then was deleted
    const auto volumes = core_.store->list<VolumeRecord>();
    if (!volumes) return;  // what runs goes on
    std::set<VolumeId> known;
    for (const auto& volume : *volumes) {
        if (ending_) return;
        known.insert(volume.id);
        look_for_others(volume);
        tell_of_lost(volume);
    }
    for (const auto& [id, ref] : running) {
        if (known.contains(id))
            end_if_idle(id, ref);
        else
            end_deleted(id, ref);
        end_if_forced_off(id, ref);
    }
}

/// Another host has taken its attachment off while this one was not to be reached.
void Volumes::end_if_forced_off(VolumeId volume, const SlotRef& slot) {
    const Operation operation(slot->operation, std::try_to_lock);
    if (!operation.owns_lock()) return;
    std::optional<AttachmentRecord> served;
    {
        const std::lock_guard state(slot->state);
        if (slot->front) served = slot->front->attachment;
    }
    if (!served) return;
    const auto stored = core_.store->get<AttachmentRecord>(served->id);
    if (!stored || *stored) return;
    if (const auto down = take_down(slot, *served, true); !down) {
        log::warn("volume {}: {}", volume.to_string(), to_string(down.error()));
        return;
    }
    core_.events->add("volume.detached", volume.to_string(), "was forced off by another host");
}

void Volumes::end_if_idle(VolumeId volume, const SlotRef& slot) {
    const auto served = [&] {
        const std::lock_guard state(slot->state);
        return slot->serves_others ? slot->running : nullptr;
    }();
    if (!served) return;
    const bool used = served->connections_of_others() > 0;
    const auto now = std::chrono::steady_clock::now();
    {
        const std::lock_guard state(slot->state);
        if (used) slot->asked_at = now;
        if (now - slot->asked_at < kIdle) return;
    }
    end_serving(volume, slot);
}

/// Here it goes on under a record that is retired, until this.
void Volumes::end_deleted(VolumeId volume, const SlotRef& slot) {
    ReplicaId joining;
    {
        const std::lock_guard state(slot->state);
        if (!slot->running) return;
        joining = slot->joining;
    }
    finish_joining(volume, joining);  // a copy that runs is given up
    end_serving(volume, slot);
}

void Volumes::end_serving(VolumeId volume, const SlotRef& slot) {
    {
        const std::lock_guard state(slot->state);
        if (!std::exchange(slot->serves_others, false)) return;
    }
    if (const auto released = release(slot); !released)
        log::warn("volume {}: {}", volume.to_string(), to_string(released.error()));
    changed_();  // files that were open may be to go
}

}  // namespace ublkd::daemon
