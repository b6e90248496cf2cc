// The permission service: which host may host a resource. Several hosts prepare, each asks, the
// first to ask is granted; the stored indication denies all others. A grant is on stable storage
// before it is acknowledged, so a holder that lost the answer asks again and is granted again, and
// nobody else ever is. A holder is a host *and* an incarnation: a host that lost its disk asks with
// a new incarnation and does not inherit. A place of a volume (place.h) is granted to who has
// prepared a replica for it alone. A deleted resource is denied for ever. revoke() is an
// act (nothing expires): it raises the generation, bars the holder from this resource, and is
// refused while the holder's incarnation is a member of a membership record (propose a record
// without it first: R5 fences it). Fault points: permission.before_store, permission.after_store.
// Control plane; blocking; thread-safe. States and their transitions: docs/metadata.md.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "metadata/store.h"
#include "ublkd/base/ids.h"
#include "ublkd/base/result.h"

namespace ublkd::metadata {

struct Holder {
    HostId host;
    ReplicaId incarnation;
    friend bool operator==(const Holder&, const Holder&) = default;
};

enum class PermissionAnswer {
    kGranted,
    kHeldByAnother,
    kRevokedFromAsker,
    kDeleted,
    kNotACandidate  // it has prepared no replica for the place that it asks for
};
constexpr std::array<std::string_view, 5> enum_names(PermissionAnswer) {
    return {"granted", "held-by-another", "revoked-from-asker", "deleted", "not-a-candidate"};
}

struct PermissionResult {
    PermissionAnswer answer = PermissionAnswer::kHeldByAnother;
    Holder holder;  // who holds it now; none where it is revoked or deleted
    std::uint64_t generation =
        0;  // of the permission; a holder shows it with what it does under the permission
};

/// What the sweeper asks a past holder to do: delete what it has of `resource`, made as
/// `holder.incarnation`.
struct DeleteRequest {
    std::string resource;
    Holder holder;
};

/// 1 to 128 characters of [A-Za-z0-9._:/-].
bool is_resource_name(std::string_view name);

class PermissionService {
  public:
    explicit PermissionService(MetadataStore* store) : store_(store) {}

    /// kInvalidArgument: not a resource name, or no host or incarnation. On any other error the
    /// outcome is unknown and the asker asks again; it is granted then if it was first.
    Result<PermissionResult> request(const std::string& resource, const Holder& asker);

    /// Takes the permission from `holder`, who has to be its holder (kConflict otherwise, kNotFound
    /// where nobody holds it). kBusy: its incarnation is a member of a volume's record. The next to
    /// ask that is no past holder is granted.
    Result<PermissionRecord> revoke(const std::string& resource, const Holder& holder);

    /// Takes from `incarnation` what it holds, if anything; as revoke(), part of the caller's
    /// transaction.
    static Result<void> revoke_all(Transaction& tx, ReplicaId incarnation);

    /// Gives it to `holder`, who has it in truth: the records were restored, and are behind (R16).
    /// Part of the caller's transaction, in which another holder is no member any more.
    static Result<void> hand_over(Transaction& tx, const std::string& resource,
                                  const Holder& holder);

    /// Denies the resource for ever, also where nobody ever asked for it; its holder becomes a past
    /// one. Part of the caller's transaction (a volume's deletion).
    static Result<void> delete_resource(Transaction& tx, const std::string& resource);

    Result<std::vector<PermissionRecord>> list(const Query& query = {});

    /// Past holders that have not confirmed, in the order of their resources.
    Result<std::vector<DeleteRequest>> pending_deletes();
    /// That holder has deleted what it had (no error where it is known already; kNotFound: never a
    /// past holder).
    Result<void> confirm_delete(const DeleteRequest& request);
    /// One round of the sweeper: sends each pending request; ok from `send` confirms it, an error
    /// leaves it for the next round. How many are still pending.
    Result<std::size_t> sweep(const std::function<Result<void>(const DeleteRequest&)>& send);

  private:
    MetadataStore* store_;
};

}  // namespace ublkd::metadata
