// What the routes ask of the daemon. ublkd/daemon implements it; a test of the routes implements it
// by hand. A string that names a resource is an id, a unique prefix of one, or a Name tag. Calls
// come from the API's handler threads, many at a time, and may block.
#pragma once

#include <string>
#include <vector>

#include "ublkd/api/errors.h"
#include "ublkd/api/views.h"

namespace ublkd::api {

class SystemControl {
  public:
    virtual ~SystemControl() = default;
    virtual bool initialized() const = 0;
    virtual VersionView version() = 0;
    virtual StatusView status() = 0;
    virtual std::vector<FindingView> doctor() = 0;
    /// Writes the configuration and makes the first pool (no path: none is made). Errors:
    /// IncorrectState (is initialized), what adding a pool gives.
    virtual ApiResult<std::optional<PoolView>> init(const AddPoolRequest& request) = 0;
    virtual ApiResult<std::vector<HostView>> hosts() = 0;
    virtual ApiResult<HostView> host(const std::string& name) = 0;
    /// All pools of the host are drained, or, with drain == false, no more.
    virtual ApiResult<HostView> drain_host(const std::string& name, bool drain) = 0;
    /// Forgets a host that has nothing any more. `force`: one that does not answer, with its pools,
    /// instances and lost replicas; no member of a volume.
    virtual ApiResult<void> remove_host(const std::string& name, bool force) = 0;
    /// Events after `after_sequence`, oldest first, at most `limit`; waits up to `wait_ms` for one.
    virtual ApiResult<std::vector<EventView>> events(std::uint64_t after_sequence, unsigned limit,
                                                     unsigned wait_ms) = 0;
    virtual ApiResult<std::vector<OrphanView>> orphans() = 0;
    virtual ApiResult<void> recover_orphan(int device) = 0;
    virtual ApiResult<void> remove_orphan(int device) = 0;
};

/// Hosts that have certificates of the cluster's own authority. What init() and join() write counts
/// when the daemon starts again.
class ClusterControl {
  public:
    virtual ~ClusterControl() = default;
    /// Makes the authority here. Errors: IncorrectState (this host is in a cluster).
    virtual ApiResult<ClusterView> init_cluster(const InitClusterRequest& request) = 0;
    /// Where the authority is alone.
    virtual ApiResult<JoinTokenView> make_token(std::uint64_t life_seconds) = 0;
    /// Errors: those of the authority's host (routes_enrol.h), and Unavailable.
    virtual ApiResult<ClusterView> join(const JoinClusterRequest& request) = 0;
};

class VolumeControl {
  public:
    virtual ~VolumeControl() = default;
    virtual ApiResult<VolumeView> create_volume(const CreateVolumeRequest& request) = 0;
    virtual ApiResult<PlanView> plan_volume(const CreateVolumeRequest& request) = 0;
    virtual ApiResult<std::vector<VolumeView>> volumes() = 0;
    virtual ApiResult<VolumeView> volume(const std::string& name) = 0;
    virtual ApiResult<VolumeView> modify_volume(const std::string& name,
                                                const ModifyVolumeRequest& request) = 0;
    virtual ApiResult<void> delete_volume(const std::string& name, bool dry_run) = 0;
    virtual ApiResult<VerifyView> verify_volume(const std::string& name, bool repair) = 0;
    /// What is not as it should be with the volume, by which rule, and the next safe command.
    virtual ApiResult<std::vector<FindingView>> why(const std::string& name) = 0;
    virtual ApiResult<AttachmentView> attach(const AttachRequest& request) = 0;
    virtual ApiResult<PlanView> plan_attach(const AttachRequest& request) = 0;
    /// `force`: does not wait for clients or openers.
    virtual ApiResult<AttachmentView> detach(const std::string& volume, const std::string& instance,
                                             bool force) = 0;
    virtual ApiResult<PlanView> plan_detach(const std::string& volume, const std::string& instance,
                                            bool force) = 0;
    virtual ApiResult<std::vector<AttachmentView>> attachments() = 0;
    /// The pools that are drained, of all hosts, and how far each is.
    virtual ApiResult<std::vector<DrainView>> drains() = 0;
    /// Where each replica would move.
    virtual ApiResult<PlanView> plan_pool_drain(const std::string& pool) = 0;
    virtual ApiResult<PlanView> plan_host_drain(const std::string& host) = 0;
    virtual ApiResult<MembershipView> membership(const std::string& volume) = 0;
    virtual ApiResult<ProposalAnswer> propose(const ProposalRequest& request) = 0;
};

class InstanceControl {
  public:
    virtual ~InstanceControl() = default;
    virtual ApiResult<InstanceView> create_instance(const std::string& name, const Tags& tags) = 0;
    virtual ApiResult<std::vector<InstanceView>> instances() = 0;
    virtual ApiResult<InstanceView> instance(const std::string& name) = 0;
    virtual ApiResult<void> delete_instance(const std::string& name) = 0;
};

class PoolControl {
  public:
    virtual ~PoolControl() = default;
    virtual ApiResult<PoolView> add_pool(const AddPoolRequest& request) = 0;
    virtual ApiResult<PlanView> plan_pool(const AddPoolRequest& request) = 0;
    virtual ApiResult<std::vector<PoolView>> pools() = 0;
    virtual ApiResult<PoolView> pool(const std::string& name) = 0;
    virtual ApiResult<void> remove_pool(const std::string& name) = 0;
    virtual ApiResult<PlanView> plan_pool_removal(const std::string& name) = 0;
    /// Its replicas move to other pools from now on, or, with drain == false, no more.
    virtual ApiResult<PoolView> drain_pool(const std::string& name, bool drain) = 0;
};

class PermissionControl {
  public:
    virtual ~PermissionControl() = default;
    virtual ApiResult<std::vector<PermissionView>> permissions() = 0;
    virtual ApiResult<PermissionAnswer> request_permission(const PermissionRequest& request) = 0;
    virtual ApiResult<void> revoke_permission(const std::string& resource) = 0;
};

class TagControl {
  public:
    virtual ~TagControl() = default;
    virtual ApiResult<std::vector<TagView>> tags(const std::string& resource) = 0;
    virtual ApiResult<void> add_tags(const std::string& resource, const Tags& tags) = 0;
    virtual ApiResult<void> remove_tags(const std::string& resource,
                                        const std::vector<std::string>& keys) = 0;
};

class MetadataControl {
  public:
    virtual ~MetadataControl() = default;
    virtual ApiResult<BackupView> backup() = 0;
    /// Checks the file and keeps it for the next start of this daemon, which puts it in the place
    /// of what is there. Errors: CorruptData, UnsupportedOperation (of another version),
    /// IncorrectState (there are metadata, and not `force`; another host keeps them).
    virtual ApiResult<BackupView> restore(const RestoreRequest& request) = 0;
    virtual ApiResult<PlanView> plan_restore(const RestoreRequest& request) = 0;
    /// Makes the metadata of this host, which has none, from what is in its pools. Errors:
    /// IncorrectState (it is initialized), AlreadyExists (another host has its name), what opening
    /// a pool gives.
    virtual ApiResult<RebuildView> rebuild(const RebuildRequest& request) = 0;
    virtual ApiResult<PlanView> plan_rebuild(const RebuildRequest& request) = 0;
    /// A volume goes on after a restore by what those hosts have told that could (R16).
    /// IncorrectState: it waits for nobody, or nobody has told anything.
    virtual ApiResult<void> thaw(const std::string& volume) = 0;
};

struct Controls {
    SystemControl* system;
    ClusterControl* cluster;
    VolumeControl* volumes;
    InstanceControl* instances;
    PoolControl* pools;
    PermissionControl* permissions;
    TagControl* tags;
    MetadataControl* metadata;
};

}  // namespace ublkd::api
