// What each operation answers is what docs/openapi.yaml describes: with every field of the daemon's
// views filled in, each described field is there, with its type and one of its values, and nothing
// else is.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/api/openapi.h"
#include "ublkd/api/routes.h"

namespace ublkd::api {
namespace {

/// Controls that do everything, with answers in which nothing is left out.
struct Willing final : SystemControl,
                       ClusterControl,
                       VolumeControl,
                       InstanceControl,
                       PoolControl,
                       PermissionControl,
                       TagControl,
                       MetadataControl {
    const AttachmentView attachment_{"a",   "v",    "i", "h",  "n",  "attached", "d",  "l",
                                     "sdf", "ublk", 1,   true, true, true,       "why"};
    const VolumeView volume_{
        "v",
        "n",
        {{"k", "v"}},
        "in-use",
        1,
        1,
        1,
        512,
        "flush",
        "write",
        "wait",
        true,
        1,
        1,
        true,
        {"blocked", 1, 2, 1, 2, "R7", "why", 1},
        {{"r", "p", "h", "d", "returning", "why", "its pool", 1, 1, true, "why"}},
        {attachment_}};
    const PoolView pool_{"p", "h", "/x", "d", "failed", "why", "warning", 1,      1, 1,
                         1,   1,   true, 1,   true,     1,     {"p2"},    "host", 1};
    const DrainView drain_{"p", "/x", "h", "host", "blocked", 1, 1, "why", "fix"};
    const InstanceView instance_{"i", "n", "h", {{"k", "v"}}, true, 1, {attachment_}};
    const ClusterView cluster_{"n", "l", "m", "a"};
    const HostView host_{"h", "n", "ok", "1", "b", 1, 1, true, 1, 1, 1};
    const MembershipView membership_{"v", "r", 1, 1, true, {{"r", "h", "p"}}, {"a"}};
    const PlanView plan_{{"do it"}};

    bool initialized() const override { return true; }
    VersionView version() override { return {"1", "v1", true, 1, "b"}; }
    StatusView status() override {
        return {true, "1", "degraded", 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, {"why"}, {"note"}};
    }
    std::vector<FindingView> doctor() override { return {{"c", "problem", "m", "fix"}}; }
    ApiResult<std::optional<PoolView>> init(const AddPoolRequest&) override { return pool_; }
    ApiResult<std::vector<HostView>> hosts() override { return std::vector{host_}; }
    ApiResult<HostView> host(const std::string&) override { return host_; }
    ApiResult<HostView> drain_host(const std::string&, bool) override { return host_; }
    ApiResult<void> remove_host(const std::string&, bool) override { return {}; }
    ApiResult<std::vector<EventView>> events(std::uint64_t, unsigned, unsigned) override {
        return std::vector<EventView>{{1, 1, "k", "r", "m"}};
    }
    ApiResult<std::vector<OrphanView>> orphans() override {
        return std::vector<OrphanView>{{1, "/dev/ublkb1", "s", "v", "m"}};
    }
    ApiResult<void> recover_orphan(int) override { return {}; }
    ApiResult<void> remove_orphan(int) override { return {}; }
    ApiResult<ClusterView> init_cluster(const InitClusterRequest&) override { return cluster_; }
    ApiResult<JoinTokenView> make_token(std::uint64_t) override {
        return JoinTokenView{"t", "a", 1};
    }
    ApiResult<ClusterView> join(const JoinClusterRequest&) override { return cluster_; }
    ApiResult<VolumeView> create_volume(const CreateVolumeRequest&) override { return volume_; }
    ApiResult<PlanView> plan_volume(const CreateVolumeRequest&) override { return plan_; }
    ApiResult<std::vector<VolumeView>> volumes() override { return std::vector{volume_}; }
    ApiResult<VolumeView> volume(const std::string&) override { return volume_; }
    ApiResult<VolumeView> modify_volume(const std::string&, const ModifyVolumeRequest&) override {
        return volume_;
    }
    ApiResult<void> delete_volume(const std::string&, bool) override { return {}; }
    ApiResult<VerifyView> verify_volume(const std::string&, bool) override {
        return VerifyView{"v", 2, 1, 1, 1, 0};
    }
    ApiResult<std::vector<FindingView>> why(const std::string&) override { return doctor(); }
    ApiResult<AttachmentView> attach(const AttachRequest&) override { return attachment_; }
    ApiResult<PlanView> plan_attach(const AttachRequest&) override { return plan_; }
    ApiResult<AttachmentView> detach(const std::string&, const std::string&, bool) override {
        return attachment_;
    }
    ApiResult<PlanView> plan_detach(const std::string&, const std::string&, bool) override {
        return plan_;
    }
    ApiResult<std::vector<AttachmentView>> attachments() override {
        return std::vector{attachment_};
    }
    ApiResult<std::vector<DrainView>> drains() override { return std::vector{drain_}; }
    ApiResult<PlanView> plan_pool_drain(const std::string&) override { return plan_; }
    ApiResult<PlanView> plan_host_drain(const std::string&) override { return plan_; }
    ApiResult<MembershipView> membership(const std::string&) override { return membership_; }
    ApiResult<ProposalAnswer> propose(const ProposalRequest&) override {
        return ProposalAnswer{"declined", membership_};
    }
    ApiResult<InstanceView> create_instance(const std::string&, const Tags&) override {
        return instance_;
    }
    ApiResult<std::vector<InstanceView>> instances() override { return std::vector{instance_}; }
    ApiResult<InstanceView> instance(const std::string&) override { return instance_; }
    ApiResult<void> delete_instance(const std::string&) override { return {}; }
    ApiResult<PoolView> add_pool(const AddPoolRequest&) override { return pool_; }
    ApiResult<PlanView> plan_pool(const AddPoolRequest&) override { return plan_; }
    ApiResult<std::vector<PoolView>> pools() override { return std::vector{pool_}; }
    ApiResult<PoolView> pool(const std::string&) override { return pool_; }
    ApiResult<void> remove_pool(const std::string&) override { return {}; }
    ApiResult<PoolView> drain_pool(const std::string&, bool) override { return pool_; }
    ApiResult<PlanView> plan_pool_removal(const std::string&) override { return plan_; }
    ApiResult<std::vector<PermissionView>> permissions() override {
        return std::vector<PermissionView>{{"r", "h", "p", "i", "granted", 1, 1}};
    }
    ApiResult<PermissionAnswer> request_permission(const PermissionRequest&) override {
        return PermissionAnswer{false, "held-by-another", "h", "i", 1};
    }
    ApiResult<void> revoke_permission(const std::string&) override { return {}; }
    ApiResult<BackupView> backup() override { return BackupView{"h", 1, 1, 1, 1, "t"}; }
    ApiResult<BackupView> restore(const RestoreRequest&) override { return backup(); }
    ApiResult<PlanView> plan_restore(const RestoreRequest&) override { return plan_; }
    ApiResult<RebuildView> rebuild(const RebuildRequest&) override {
        return RebuildView{"h", 1, 1};
    }
    ApiResult<PlanView> plan_rebuild(const RebuildRequest&) override { return plan_; }
    ApiResult<void> thaw(const std::string&) override { return {}; }
    ApiResult<std::vector<TagView>> tags(const std::string&) override {
        return std::vector<TagView>{{"r", "k", "v"}};
    }
    ApiResult<void> add_tags(const std::string&, const Tags&) override { return {}; }
    ApiResult<void> remove_tags(const std::string&, const std::vector<std::string>&) override {
        return {};
    }
};

class Answers : public testing::Test {
  protected:
    Answers() {
        add_routes(table_, {&controls_, &controls_, &controls_, &controls_, &controls_, &controls_,
                            &controls_, &controls_});
    }
    Json ask(const DescribedOperation& operation, const Json& body) {
        std::string target = operation.path;
        for (auto at = target.find('{'); at != std::string::npos; at = target.find('{'))
            target.replace(at, target.find('}') - at + 1, "7");
        const bool has_body = operation.method != "GET" && operation.method != "DELETE";
        if (!has_body && body["DryRun"].as_bool()) target += "?dry_run=true";
        const auto response = table_.dispatch(
            {operation.method, target, has_body ? body.dump() : "", Caller{0, 0, 1, true}});
        EXPECT_EQ(response.status, 200) << operation.operation << ": " << response.body;
        return *Json::parse(response.body);
    }
    void expect_described(const std::string& object, const Json& value, const std::string& where) {
        ASSERT_TRUE(value.is_object()) << where;
        ASSERT_TRUE(described_.objects.contains(object)) << object;
        std::set<std::string> seen;
        for (const auto& [key, member] : value.members()) seen.insert(key);
        for (const auto& field : described_.objects.at(object)) {
            EXPECT_EQ(seen.erase(field.name), 1U) << where << " has " << field.name;
            expect_fits(field, value[field.name], where + "." + field.name);
        }
        for (const auto& key : seen) ADD_FAILURE() << where << "." << key << " is not described";
    }

    const OpenApi described_ = read_openapi();

  private:
    void expect_fits(const DescribedField& field, const Json& value, const std::string& where) {
        const std::string_view type = value.type_name();
        EXPECT_TRUE(field.type.empty() || type == (field.type == "integer" ? "number" : field.type))
            << where << " is " << type;
        EXPECT_TRUE(field.choices.empty() || !value.is_string() ||
                    std::ranges::find(field.choices, value.as_string()) != field.choices.end())
            << where << ": " << value.as_string();
        if (field.type.empty()) expect_described(field.items, value, where);
        if (field.type != "array") return;
        EXPECT_FALSE(value.items().empty()) << where;
        for (const Json& item : value.items()) {
            if (field.items != "string") expect_described(field.items, item, where);
            EXPECT_EQ(item.is_string(), field.items == "string") << where;
        }
    }

    Willing controls_;
    RouteTable table_{[] { return true; }};
};

TEST_F(Answers, HaveTheDescribedFieldsAndNoOthers) {
    for (const auto& operation : described_.operations) {
        const Json answer = ask(operation, least_good_body(operation.body));
        if (operation.list.empty()) {
            expect_described(operation.answer, answer, operation.operation);
            continue;
        }
        EXPECT_EQ(answer.members().size(), 1U) << operation.operation;
        ASSERT_FALSE(answer[operation.list].items().empty()) << operation.operation;
        for (const Json& item : answer[operation.list].items())
            expect_described(operation.answer, item, operation.operation);
    }
}

TEST_F(Answers, OfADryRunAreAPlan) {
    unsigned plans = 0;
    for (const auto& operation : described_.operations) {
        if (!operation.plans) continue;
        ++plans;
        expect_described("Plan",
                         ask(operation, least_good_body(operation.body).set("DryRun", true)),
                         operation.operation);
    }
    EXPECT_EQ(plans, 7U);
}

}  // namespace
}  // namespace ublkd::api
