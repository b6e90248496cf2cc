#include "metadata/permission.h"

#include <algorithm>

#include "metadata/place.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::metadata {
namespace {

constexpr std::size_t kResourceNameMax = 128;

bool is_resource_character(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == ':' || c == '/' || c == '-';
}

bool same_holder(const PermissionRecord& record, const Holder& asker) {
    const bool same_incarnation =
        record.incarnation == asker.incarnation || faults::rule_off("rule.permission_incarnation");
    return record.host == asker.host && same_incarnation;
}

PermissionResult answer_for(PermissionAnswer answer, const PermissionRecord& record) {
    return PermissionResult{answer, Holder{record.host, record.incarnation}, record.generation};
}

/// Of a resource that is free: a volume's place is for those who have prepared a replica for it.
Result<std::optional<PermissionResult>> judge_candidate(Transaction& tx,
                                                        const std::string& resource,
                                                        const Holder& asker,
                                                        std::uint64_t generation) {
    using Answer = std::optional<PermissionResult>;
    const auto place = parse_place(resource);
    if (!place || faults::rule_off("rule.permission_candidates")) return Answer();
    TRY_ASSIGN(const bool prepared, is_candidate(tx, *place, asker));
    if (prepared) return Answer();
    return Answer(PermissionResult{PermissionAnswer::kNotACandidate, Holder(), generation});
}

/// What `asker` is told; nullopt where the resource is free for it, and is to be granted.
Result<std::optional<PermissionResult>> judge(Transaction& tx, const std::string& resource,
                                              const std::optional<PermissionRecord>& record,
                                              const Holder& asker) {
    using Answer = std::optional<PermissionResult>;
    if (!record) return judge_candidate(tx, resource, asker, 0);
    switch (record->state) {
        case PermissionState::kGranted:
            if (same_holder(*record, asker))
                return Answer(answer_for(PermissionAnswer::kGranted, *record));
            if (faults::rule_off("rule.permission_first_wins")) return Answer();
            return Answer(answer_for(PermissionAnswer::kHeldByAnother, *record));
        case PermissionState::kDeleted:
            if (faults::rule_off("rule.permission_tombstone")) return Answer();
            return Answer(answer_for(PermissionAnswer::kDeleted, *record));
        case PermissionState::kRevoked:
            break;
    }
    auto past = tx.get<PastHolderRecord>(resource, asker.host, asker.incarnation);
    if (!past) return fail(past.error());
    if (*past && !faults::rule_off("rule.permission_past_holder"))
        return Answer(answer_for(PermissionAnswer::kRevokedFromAsker, *record));
    return judge_candidate(tx, resource, asker, record->generation);
}

Result<bool> is_member_somewhere(Transaction& tx, ReplicaId incarnation) {
    auto memberships = tx.list<MembershipRecord>();
    if (!memberships) return fail(memberships.error());
    return std::any_of(
        memberships->begin(), memberships->end(), [&](const MembershipRecord& stored) {
            return !stored.retired && stored.membership && stored.membership->has(incarnation);
        });
}

/// Ends the holding that `record` says: it becomes a past one, which is asked to delete what it
/// has.
Result<void> end_holding(Transaction& tx, PermissionRecord& record, PermissionState next) {
    if (record.state == PermissionState::kGranted) {
        PastHolderRecord past{.resource = record.resource,
                              .host = record.host,
                              .incarnation = record.incarnation,
                              .generation = record.generation,
                              .created_ms = now_ms()};
        TRY(tx.put(past));
    }
    record.state = next;
    if (next == PermissionState::kRevoked) ++record.generation;
    record.host = HostId();
    record.incarnation = ReplicaId();
    record.changed_ms = now_ms();
    return tx.put(record);
}

/// Whether it may be a member in truth: what is stored was restored, and may be behind (R16).
Result<bool> is_of_a_frozen_volume(Transaction& tx, ReplicaId incarnation) {
    TRY_ASSIGN(const auto replica, tx.get<ReplicaRecord>(incarnation));
    if (!replica) return false;
    TRY_ASSIGN(const auto stored, tx.get<MembershipRecord>(replica->volume));
    return stored && stored->frozen;
}

/// A member keeps its permission: a record without it comes first (R5).
Result<void> check_fenced(Transaction& tx, ReplicaId incarnation) {
    TRY_ASSIGN(const bool frozen, is_of_a_frozen_volume(tx, incarnation));
    if (frozen) return fail(Errc::kBusy, kFrozen);
    TRY_ASSIGN(const bool member, is_member_somewhere(tx, incarnation));
    if (member && !faults::rule_off("rule.permission_revoke_fenced"))
        return fail(Errc::kBusy, "revoke permission: its holder is a member");
    return {};
}

}  // namespace

bool is_resource_name(std::string_view name) {
    return !name.empty() && name.size() <= kResourceNameMax &&
           std::all_of(name.begin(), name.end(), is_resource_character);
}

Result<PermissionResult> PermissionService::request(const std::string& resource,
                                                    const Holder& asker) {
    if (!is_resource_name(resource))
        return fail(Errc::kInvalidArgument, "permission: resource name");
    if (!asker.host || !asker.incarnation)
        return fail(Errc::kInvalidArgument, "permission: host and incarnation");

    // Most who ask are refused, which changes nothing: a committed state suffices for that.
    auto settled = store_->read_for<std::optional<PermissionResult>>(
        [&](Transaction& tx) -> Result<std::optional<PermissionResult>> {
            auto record = tx.get<PermissionRecord>(resource);
            if (!record) return fail(record.error());
            return judge(tx, resource, *record, asker);
        });
    if (!settled) return fail(settled.error());
    if (*settled) return **settled;

    bool stored = false;
    auto result =
        store_->write_for<PermissionResult>([&](Transaction& tx) -> Result<PermissionResult> {
            stored = false;
            auto found = tx.get<PermissionRecord>(resource);
            if (!found) return fail(found.error());
            TRY_ASSIGN(const auto answer, judge(tx, resource, *found, asker));
            if (answer) return *answer;
            PermissionRecord record = found->value_or(PermissionRecord{.resource = resource});
            record.state = PermissionState::kGranted;
            record.host = asker.host;
            record.incarnation = asker.incarnation;
            record.changed_ms = now_ms();
            if (const int error = faults::hit("permission.before_store"))
                return fail_errno(error, "store permission");
            if (!faults::rule_off("rule.permission_store_first")) {
                TRY(tx.put(record));
            }
            stored = true;
            return answer_for(PermissionAnswer::kGranted, record);
        });
    if (result && stored) {
        if (const int error = faults::hit("permission.after_store"))
            return fail_errno(error, "answer permission");
    }
    return result;
}

Result<PermissionRecord> PermissionService::revoke(const std::string& resource,
                                                   const Holder& holder) {
    return store_->write_for<PermissionRecord>([&](Transaction& tx) -> Result<PermissionRecord> {
        auto found = tx.get<PermissionRecord>(resource);
        if (!found) return fail(found.error());
        if (!*found || (*found)->state != PermissionState::kGranted)
            return fail(Errc::kNotFound, "revoke permission: nobody holds it");
        PermissionRecord record = **found;
        if (record.host != holder.host || record.incarnation != holder.incarnation)
            return fail(Errc::kConflict, "revoke permission: another holds it");
        TRY(check_fenced(tx, holder.incarnation));
        TRY(end_holding(tx, record, PermissionState::kRevoked));
        return record;
    });
}

Result<void> PermissionService::revoke_all(Transaction& tx, ReplicaId incarnation) {
    TRY_ASSIGN(const auto held, tx.list<PermissionRecord>(where("incarnation", incarnation)));
    if (held.empty()) return {};
    TRY(check_fenced(tx, incarnation));
    for (PermissionRecord record : held) {
        if (record.state != PermissionState::kGranted) continue;
        TRY(end_holding(tx, record, PermissionState::kRevoked));
    }
    return {};
}

Result<void> PermissionService::hand_over(Transaction& tx, const std::string& resource,
                                          const Holder& holder) {
    TRY_ASSIGN(const auto found, tx.get<PermissionRecord>(resource));
    if (found && found->state == PermissionState::kGranted) {
        PermissionRecord record = *found;
        TRY(check_fenced(tx, record.incarnation));
        TRY(end_holding(tx, record, PermissionState::kRevoked));
    }
    TRY_ASSIGN(const auto now, tx.get<PermissionRecord>(resource));
    PermissionRecord record = now.value_or(PermissionRecord{.resource = resource});
    record.state = PermissionState::kGranted;
    record.host = holder.host;
    record.incarnation = holder.incarnation;
    record.changed_ms = now_ms();
    return tx.put(record);
}

Result<void> PermissionService::delete_resource(Transaction& tx, const std::string& resource) {
    if (!is_resource_name(resource))
        return fail(Errc::kInvalidArgument, "permission: resource name");
    auto found = tx.get<PermissionRecord>(resource);
    if (!found) return fail(found.error());
    if (*found && (*found)->state == PermissionState::kDeleted) return {};
    PermissionRecord record =
        found->value_or(PermissionRecord{.resource = resource, .state = PermissionState::kRevoked});
    return end_holding(tx, record, PermissionState::kDeleted);
}

Result<std::vector<PermissionRecord>> PermissionService::list(const Query& query) {
    return store_->list<PermissionRecord>(query);
}

Result<std::vector<DeleteRequest>> PermissionService::pending_deletes() {
    auto pending = store_->list<PastHolderRecord>(where("delete_confirmed", false));
    if (!pending) return fail(pending.error());
    std::vector<DeleteRequest> requests;
    requests.reserve(pending->size());
    for (const PastHolderRecord& past : *pending)
        requests.push_back(DeleteRequest{past.resource, Holder{past.host, past.incarnation}});
    return requests;
}

Result<void> PermissionService::confirm_delete(const DeleteRequest& request) {
    return store_->write([&](Transaction& tx) -> Result<void> {
        auto found = tx.get<PastHolderRecord>(request.resource, request.holder.host,
                                              request.holder.incarnation);
        if (!found) return fail(found.error());
        if (!*found) return fail(Errc::kNotFound, "confirm delete: never a past holder");
        PastHolderRecord past = **found;
        if (past.delete_confirmed) return {};
        past.delete_confirmed = true;
        return tx.put(past);
    });
}

Result<std::size_t> PermissionService::sweep(
    const std::function<Result<void>(const DeleteRequest&)>& send) {
    TRY_ASSIGN(const std::vector<DeleteRequest> requests, pending_deletes());
    std::size_t pending = 0;
    for (const DeleteRequest& request : requests) {
        if (!send(request)) {
            ++pending;
            continue;
        }
        TRY(confirm_delete(request));
    }
    return pending;
}

}  // namespace ublkd::metadata
