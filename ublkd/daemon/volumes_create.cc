#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "ublkd/base/fault_injection.h"
#include "ublkd/base/log.h"
#include "ublkd/daemon/names.h"
#include "ublkd/daemon/placement.h"
#include "ublkd/daemon/volumes.h"

namespace ublkd::daemon {

using api::ApiResult;
using api::CreateVolumeRequest;
using api::refuse;
using metadata::ReplicaRecord;
using metadata::ReplicaState;
using metadata::Transaction;
using metadata::VolumeRecord;
using metadata::VolumeState;

namespace {

constexpr const char* kAction = "CreateVolume";
constexpr auto kOthersCreation = std::chrono::seconds(15);
constexpr const char* kTokenTaken = "TokenTaken";  // between two functions here; no code of the API

/// The parameters of a request, for telling a repeated client token from a reused one.
std::string fingerprint(const CreateVolumeRequest& request) {
    std::string text =
        fmt::format("size={};replicas={};block={};durability={};on_full={};name={}",
                    request.size_bytes, request.replicas.value_or(0), request.block_bytes,
                    request.durability, request.on_full, request.name);
    if (request.multi_attach) text += ";multi_attach";
    for (const auto& [key, value] : request.tags) text += fmt::format(";{}={}", key, value);
    return text;
}

api::Tags all_tags(const CreateVolumeRequest& request) {
    api::Tags tags = request.tags;
    if (!request.name.empty()) tags["Name"] = request.name;
    return tags;
}

ApiResult<void> check_create(const CreateVolumeRequest& request) {
    if (!request.name.empty()) {
        API_TRY(check_name(request.name));
    }
    if (!request.name.empty() && request.tags.contains("Name") &&
        request.tags.at("Name") != request.name) {
        return refuse("InvalidParameterCombination",
                      "Name and the tag Name differ: give one of them");
    }
    return check_tags(all_tags(request));
}

std::vector<unsigned> place_numbers(unsigned wanted) {
    std::vector<unsigned> places;
    for (unsigned i = 0; i < wanted; ++i) places.push_back(i);
    return places;
}

}  // namespace

ApiResult<unsigned> Volumes::decide_replicas(const CreateVolumeRequest& request,
                                             const std::vector<UsablePool>& usable) {
    if (usable.empty()) {
        return refuse("InsufficientStorage",
                      fmt::format("there is no usable pool{}: 'ebs-cli pool list' shows why, "
                                  "'ebs-cli pool add DIR' adds one",
                                  drained_text()));
    }
    const auto domains = static_cast<unsigned>(domains_of(usable).size());
    const unsigned wanted = request.replicas.value_or(std::min(domains, 2u));
    if (wanted > domains) {
        return refuse("InvalidParameterValue",
                      fmt::format("Replicas is {}, but usable pools are in {} failure domain{}{}: "
                                  "add a pool with another --domain, or take fewer replicas",
                                  wanted, domains, domains == 1 ? "" : "s", drained_text()));
    }
    return wanted;
}

ApiResult<api::PlanView> Volumes::plan_volume(const CreateVolumeRequest& request) {
    API_TRY(check_create(request));
    core_.pools->learn(core_.identity->host());  // which are drained now
    const auto usable = usable_pools();
    API_TRY_ASSIGN(const unsigned wanted, decide_replicas(request, usable));
    const auto free = core_.store->read_for<bool>([&](Transaction& tx) -> Result<bool> {
        const auto checked = check_name_free(tx, "vol-", request.name);
        if (!checked && checked.error().code != Errc::kExists) return fail(checked.error());
        return checked.has_value();
    });
    if (!free) return refuse(free.error(), "cannot look up the name");
    if (!*free)
        return refuse("AlreadyExists",
                      fmt::format("another volume has the name '{}'", request.name));
    std::vector<std::string> domains;
    for (const auto& candidate : choose_candidates(usable, {}, wanted))
        domains.push_back(candidate.domain);
    return api::PlanView{{fmt::format(
        "create a volume of {} MiB with {} replica{}; candidates in the failure domains {}",
        request.size_bytes / kMiB, wanted, wanted == 1 ? "" : "s", fmt::join(domains, ", "))}};
}

/// Of another host: until that has made it, or rolled it back. This one may have to prepare a
/// replica meanwhile, so it is no operation here.
void Volumes::await_creation(VolumeId volume) {
    const auto deadline = std::chrono::steady_clock::now() + kOthersCreation;
    for (;;) {
        const auto record = core_.store->get<VolumeRecord>(volume);
        if (!record || !*record || (*record)->state != VolumeState::kCreating) return;
        if (ending_ || std::chrono::steady_clock::now() >= deadline) return;
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
}

/// The volume that a former request with this token made.
ApiResult<std::optional<api::VolumeView>> Volumes::known_token(const CreateVolumeRequest& request) {
    if (request.client_token.empty() || faults::rule_off("rule.client_token")) return std::nullopt;
    const auto token = core_.store->get<metadata::ClientTokenRecord>(kAction, request.client_token);
    if (!token) return refuse(token.error(), "cannot look up the client token");
    if (!*token) return std::nullopt;
    if ((*token)->fingerprint != fingerprint(request)) {
        return refuse("IdempotentParameterMismatch",
                      fmt::format("the client token '{}' was used with other parameters, for {}",
                                  request.client_token, (*token)->resource));
    }
    const auto id = VolumeId::parse((*token)->resource);
    if (!id) return refuse("InternalError", "the client token names no volume");
    // Its creation may be under way still: wait for it.
    const auto found = core_.store->get<VolumeRecord>(*id);
    if (found && *found && !is_mine(**found)) {
        await_creation(*id);
    } else {
        API_TRY_ASSIGN(const auto operation, begin_operation(slot(*id), (*token)->resource));
        const auto record = core_.store->get<VolumeRecord>(*id);
        if (record && *record) (void)finish_one(**record);  // a step of it may have failed
    }
    const auto again = core_.store->get<metadata::ClientTokenRecord>(kAction, request.client_token);
    if (again && !*again) return std::nullopt;  // it was rolled back meanwhile
    API_TRY_ASSIGN(auto view, volume((*token)->resource));
    return view;
}

ApiResult<void> Volumes::store_intent(VolumeRecord& record, const CreateVolumeRequest& request,
                                      std::vector<Candidate>& candidates) {
    bool token_taken = false;
    bool pools_left = true;
    const std::string id = record.id.to_string();
    const auto stored = core_.store->write([&](Transaction& tx) -> Result<void> {
        token_taken = false;
        if (!request.client_token.empty() && !faults::rule_off("rule.client_token")) {
            metadata::ClientTokenRecord token{kAction, request.client_token, fingerprint(request),
                                              id,      record.created_ms,    0};
            const auto put = tx.put(token);
            token_taken = !put && put.error().code == Errc::kExists;
            TRY(put);
        }
        record.revision = 0;
        TRY(tx.put(record));
        TRY(check_name_free(tx, id, request.name));
        for (const auto& [key, value] : all_tags(request)) {
            TRY(put_tag(tx, id, key, value));
        }
        TRY_ASSIGN(candidates, store_candidates(tx, record.id, candidates));
        pools_left = candidates.size() >= record.replica_count;
        if (!pools_left) return fail(Errc::kConflict, "the pools that were chosen");
        return {};
    });
    if (stored) return {};
    if (token_taken) return refuse(kTokenTaken, "a request with this client token was quicker");
    if (!pools_left)
        return refuse("IncorrectState",
                      "a pool that was chosen is being removed, or has failed: try again");
    if (stored.error().code == Errc::kExists)
        return refuse("AlreadyExists",
                      fmt::format("another volume has the name '{}'", request.name));
    return refuse(stored.error(), "cannot store the volume");
}

/// Replicas prepared, places granted, the first record authorized: after this the volume is.
ApiResult<void> Volumes::found_volume(const VolumeRecord& record,
                                      std::vector<Candidate>& candidates) {
    // Other hosts begin when this one does: who is the first to ask is open.
    std::vector<std::jthread> words;
    for (const Candidate& candidate : candidates) {
        words.emplace_back([this, host = candidate.place.member.host, volume = record.id] {
            (void)tell_host(host, volume);
        });
    }
    prepare_and_ask(core_, record, place_numbers(record.replica_count), candidates);
    words.clear();
    await_places(record, candidates);
    std::vector<const Candidate*> winners(record.replica_count);
    std::optional<Error> error;
    for (const Candidate& candidate : candidates) {
        if (candidate.granted) winners[*candidate.granted] = &candidate;
        if (candidate.error) error = candidate.error;
    }
    if (std::ranges::find(winners, nullptr) != winners.end()) {
        return refuse(
            error.value_or(Error{Errc::kIo, 0, "a candidate got no place"}),
            fmt::format("fewer than {} pools could prepare a replica", record.replica_count));
    }
    // A replica here is primary, whoever was the first to ask.
    const auto own = std::ranges::find_if(winners, [this](const Candidate* winner) {
        return winner->place.member.host == core_.identity->host();
    });
    const Candidate* const primary = own == winners.end() ? winners[0] : *own;
    replication::Proposal proposal;
    proposal.proposer = primary->place.member.replica;
    proposal.next.volume = record.id;
    proposal.next.number = 1;
    proposal.next.primary = proposal.proposer;
    for (const Candidate* winner : winners) proposal.next.members.push_back(winner->place.member);
    const auto outcome = core_.authority->propose(proposal);
    if (!outcome) return refuse(outcome.error(), "the authority could not be asked");
    if (!replication::accepted(outcome->verdict))
        return refuse("InternalError", "the authority declined the first record of a new volume");
    return {};
}

ApiResult<api::VolumeView> Volumes::create_volume(const CreateVolumeRequest& request) {
    API_TRY(check_create(request));
    API_TRY_ASSIGN(auto known, known_token(request));
    if (known) return std::move(*known);
    const auto id = core_.engine->new_volume();
    if (!id)
        return refuse(id.error(),
                      "cannot create a volume: disks may hang ('ebs-cli doctor' says more)");
    return unless_it_hangs<api::VolumeView>(
        *id, false, "creation of " + id->to_string(),
        [this, request, volume = *id] { return create_one(volume, request); });
}

ApiResult<api::VolumeView> Volumes::create_one(VolumeId volume,
                                               const CreateVolumeRequest& request) {
    if (is_clustered()) core_.pools->learn(core_.identity->host());
    core_.pools->learn(core_.identity->host());  // which are drained now
    const auto usable = usable_pools();
    VolumeRecord record;
    API_TRY_ASSIGN(record.replica_count, decide_replicas(request, usable));
    record.id = volume;
    record.size_bytes = request.size_bytes;
    record.block_bytes = request.block_bytes;
    record.durability =
        request.durability == "write" ? metadata::Durability::kWrite : metadata::Durability::kFlush;
    record.on_full = request.on_full == "fail" ? metadata::OnFull::kFail : metadata::OnFull::kWait;
    record.multi_attach = request.multi_attach;
    record.created_ms = metadata::now_ms();
    record.home = core_.identity->host();
    std::vector<Candidate> candidates;
    for (const auto& pool : choose_candidates(usable, {}, record.replica_count)) {
        if (auto place = core_.pools->place(pool.id, ReplicaId::random()))
            candidates.push_back({std::move(*place), {}, {}});
    }

    const auto ref = slot(record.id);
    API_TRY_ASSIGN(const auto operation, begin_operation(ref, record.id.to_string()));
    (void)faults::hit("daemon.create.before_intent");
    const auto stored = store_intent(record, request, candidates);
    if (!stored && stored.error().code == kTokenTaken) {
        API_TRY_ASSIGN(auto known, known_token(request));
        if (known) return std::move(*known);
        return refuse("IncorrectState", "the volume of this client token was deleted meanwhile");
    }
    API_TRY(stored);
    (void)faults::hit("daemon.create.after_intent");
    if (const auto founded = found_volume(record, candidates); !founded) {
        roll_back_create(record.id);
        return refuse(founded.error());
    }
    (void)faults::hit("daemon.create.after_record");
    if (const auto finished = finish_create(record.id); !finished) {
        return refuse(
            finished.error(),
            fmt::format("{} was made, but could not be finished; that is tried again, and by the "
                        "same request with the same client token",
                        record.id.to_string()));
    }
    return this->volume(record.id.to_string());
}

/// From the authorized record on: members are sealed, losers deleted, the volume is available.
Result<void> Volumes::finish_create(VolumeId volume) {
    TRY_ASSIGN(const auto record, core_.authority->current(volume));
    if (!record) return fail(Errc::kNotFound, "the volume's membership");
    TRY_ASSIGN(const auto replicas,
               core_.store->list<ReplicaRecord>(metadata::where("volume", volume)));
    for (const auto& member : record->members) {
        const auto place = core_.pools->place(member.pool, member.replica);
        if (!place) return fail(Errc::kNotFound, "the member's pool");
        // Elsewhere it starts without a record, as empty as it was made.
        if (member.host != core_.identity->host()) continue;
        TRY(seal_member(core_, volume, *place, *record));
    }
    for (const auto& replica : replicas) {
        if (!record->has(replica.id)) discard_replica(core_, replica.id, replica.pool);
    }
    (void)faults::hit("daemon.create.before_available");
    TRY(core_.store->write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(auto stored, tx.get<VolumeRecord>(volume));
        if (!stored) return fail(Errc::kNotFound, "the volume");
        stored->state = VolumeState::kAvailable;
        TRY(tx.put(*stored));
        for (const auto& member : record->members) {
            TRY_ASSIGN(auto replica, tx.get<ReplicaRecord>(member.replica));
            if (!replica) return fail(Errc::kNotFound, "the member's replica");
            replica->state = ReplicaState::kReady;
            TRY(tx.put(*replica));
        }
        return EventLog::add_in(
            tx, "volume.created", volume.to_string(),
            fmt::format("{} MiB, {} replicas", stored->size_bytes / kMiB, stored->replica_count));
    }));
    core_.events->announce();
    log::info("volume.created {}", volume.to_string());
    return {};
}

/// No record was authorized and none ever will be: everything that was prepared goes.
void Volumes::roll_back_create(VolumeId volume) {
    const auto replicas = core_.store->list<ReplicaRecord>(metadata::where("volume", volume));
    bool all_gone = replicas.has_value();
    for (const auto& replica : replicas ? *replicas : std::vector<ReplicaRecord>()) {
        discard_replica(core_, replica.id, replica.pool);
    }
    const auto erased = core_.store->write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(const auto stored, tx.get<VolumeRecord>(volume));
        if (!stored) return {};
        for (unsigned place = 0; place < metadata::place_limit(*stored); ++place) {
            TRY(metadata::PermissionService::delete_resource(tx, place_name(volume, place)));
        }
        TRY(metadata::Authority::retire(tx, volume));
        TRY_ASSIGN(const auto left, tx.list<ReplicaRecord>(metadata::where("volume", volume)));
        for (const auto& replica : left) {
            TRY(tx.erase(replica));
        }
        all_gone = all_gone && left.empty();
        TRY(erase_tags(tx, volume.to_string()));
        TRY_ASSIGN(const auto tokens, tx.list<metadata::ClientTokenRecord>(
                                          metadata::where("resource", volume.to_string())));
        for (const auto& token : tokens) {
            TRY(tx.erase(token));
        }
        return tx.erase(*stored);
    });
    if (!erased)
        log::warn("volume {} could not be rolled back: {}", volume.to_string(),
                  to_string(erased.error()));
    if (!all_gone)
        log::warn("volume {}: replicas that were prepared stay until their pools are back",
                  volume.to_string());
    changed_();  // the sweeper tells the past holders
}

}  // namespace ublkd::daemon
