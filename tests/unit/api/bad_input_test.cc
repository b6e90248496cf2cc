// Goal: each field and parameter of each operation is checked before the daemon is asked, and what
// is refused says the field, what was given and what is allowed. Method: docs/openapi.yaml says
// which operations, parameters and fields there are and what fits them; each gets each kind of
// value that does not fit, in a request that is good otherwise. The controls behind the routes must
// not hear of it: so nothing can be left behind. What only the daemon's state can tell (no such
// volume, a taken name) is in tests/cli/tests/bad_input_*.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/api/openapi.h"
#include "ublkd/api/routes.h"

namespace ublkd::api {
namespace {

/// Controls that refuse everything with a code of their own.
std::unexpected<ApiError> reached() { return refuse("InternalError", "a control was reached"); }

struct Unreachable final : SystemControl,
                           ClusterControl,
                           VolumeControl,
                           InstanceControl,
                           PoolControl,
                           PermissionControl,
                           TagControl,
                           MetadataControl {
    bool initialized() const override { return true; }
    VersionView version() override { return {}; }
    StatusView status() override { return {}; }
    std::vector<FindingView> doctor() override { return {}; }
    ApiResult<std::optional<PoolView>> init(const AddPoolRequest&) override { return reached(); }
    ApiResult<std::vector<HostView>> hosts() override { return reached(); }
    ApiResult<HostView> host(const std::string&) override { return reached(); }
    ApiResult<HostView> drain_host(const std::string&, bool) override { return reached(); }
    ApiResult<void> remove_host(const std::string&, bool) override { return reached(); }
    ApiResult<std::vector<EventView>> events(std::uint64_t, unsigned, unsigned) override {
        return reached();
    }
    ApiResult<std::vector<OrphanView>> orphans() override { return reached(); }
    ApiResult<void> recover_orphan(int) override { return reached(); }
    ApiResult<void> remove_orphan(int) override { return reached(); }
    ApiResult<ClusterView> init_cluster(const InitClusterRequest&) override { return reached(); }
    ApiResult<JoinTokenView> make_token(std::uint64_t) override { return reached(); }
    ApiResult<ClusterView> join(const JoinClusterRequest&) override { return reached(); }
    ApiResult<VolumeView> create_volume(const CreateVolumeRequest&) override { return reached(); }
    ApiResult<PlanView> plan_volume(const CreateVolumeRequest&) override { return reached(); }
    ApiResult<std::vector<VolumeView>> volumes() override { return reached(); }
    ApiResult<VolumeView> volume(const std::string&) override { return reached(); }
    ApiResult<VolumeView> modify_volume(const std::string&, const ModifyVolumeRequest&) override {
        return reached();
    }
    ApiResult<void> delete_volume(const std::string&, bool) override { return reached(); }
    ApiResult<VerifyView> verify_volume(const std::string&, bool) override { return reached(); }
    ApiResult<std::vector<FindingView>> why(const std::string&) override { return reached(); }
    ApiResult<AttachmentView> attach(const AttachRequest&) override { return reached(); }
    ApiResult<PlanView> plan_attach(const AttachRequest&) override { return reached(); }
    ApiResult<AttachmentView> detach(const std::string&, const std::string&, bool) override {
        return reached();
    }
    ApiResult<PlanView> plan_detach(const std::string&, const std::string&, bool) override {
        return reached();
    }
    ApiResult<std::vector<AttachmentView>> attachments() override { return reached(); }
    ApiResult<std::vector<DrainView>> drains() override { return reached(); }
    ApiResult<PlanView> plan_pool_drain(const std::string&) override { return reached(); }
    ApiResult<PlanView> plan_host_drain(const std::string&) override { return reached(); }
    ApiResult<MembershipView> membership(const std::string&) override { return reached(); }
    ApiResult<ProposalAnswer> propose(const ProposalRequest&) override { return reached(); }
    ApiResult<InstanceView> create_instance(const std::string&, const Tags&) override {
        return reached();
    }
    ApiResult<std::vector<InstanceView>> instances() override { return reached(); }
    ApiResult<InstanceView> instance(const std::string&) override { return reached(); }
    ApiResult<void> delete_instance(const std::string&) override { return reached(); }
    ApiResult<PoolView> add_pool(const AddPoolRequest&) override { return reached(); }
    ApiResult<PlanView> plan_pool(const AddPoolRequest&) override { return reached(); }
    ApiResult<std::vector<PoolView>> pools() override { return reached(); }
    ApiResult<PoolView> pool(const std::string&) override { return reached(); }
    ApiResult<void> remove_pool(const std::string&) override { return reached(); }
    ApiResult<PoolView> drain_pool(const std::string&, bool) override { return reached(); }
    ApiResult<PlanView> plan_pool_removal(const std::string&) override { return reached(); }
    ApiResult<std::vector<PermissionView>> permissions() override { return reached(); }
    ApiResult<PermissionAnswer> request_permission(const PermissionRequest&) override {
        return reached();
    }
    ApiResult<void> revoke_permission(const std::string&) override { return reached(); }
    ApiResult<BackupView> backup() override { return reached(); }
    ApiResult<BackupView> restore(const RestoreRequest&) override { return reached(); }
    ApiResult<PlanView> plan_restore(const RestoreRequest&) override { return reached(); }
    ApiResult<RebuildView> rebuild(const RebuildRequest&) override { return reached(); }
    ApiResult<PlanView> plan_rebuild(const RebuildRequest&) override { return reached(); }
    ApiResult<void> thaw(const std::string&) override { return reached(); }
    ApiResult<std::vector<TagView>> tags(const std::string&) override { return reached(); }
    ApiResult<void> add_tags(const std::string&, const Tags&) override { return reached(); }
    ApiResult<void> remove_tags(const std::string&, const std::vector<std::string>&) override {
        return reached();
    }
};

/// JSON texts that do not fit the field.
std::vector<std::string> misfits(const DescribedField& field) {
    if (field.type == "boolean") return {"0", "1", "\"true\"", "[]", "{}"};
    if (field.type == "integer") {
        std::vector<std::string> texts{"-1",   "1.5",  "1e300", "\"1\"", "\"x\"",
                                       "\"\"", "true", "[1]",   "{}",    "99999999999999999999"};
        if (field.least) texts.push_back(std::to_string(*field.least - 1));
        if (field.most) texts.push_back(fmt::format("{}", *field.most + 1));
        if (!field.choices.empty()) texts.insert(texts.end(), {"0", "1024"});
        return texts;
    }
    if (field.type == "string") {
        std::vector<std::string> texts{"\"\"", "7", "true", "[]", "{}"};
        if (!field.choices.empty()) texts.insert(texts.end(), {"\"nonsense\"", "\" \""});
        return texts;
    }
    if (field.type == "array" && field.items == "Tag")
        return {"7",
                "\"x\"",
                "{}",
                "[7]",
                "[{}]",
                R"([{"Key": "k"}])",
                R"([{"Value": "v"}])",
                R"([{"Key": "", "Value": "v"}])",
                R"([{"Key": "k", "Value": 7}])",
                R"([{"Key": "k", "Value": "v", "More": 1}])",
                R"([{"Key": "k", "Value": "v"}, {"Key": "k", "Value": "w"}])"};
    if (field.type == "array" && field.items == "string") return {"7", "\"x\"", "{}", "[7]"};
    return {"7", "\"x\"", "true"};  // an object, or a list of objects
}

class BadInput : public testing::Test {
  protected:
    BadInput() {
        add_routes(table_, {&controls_, &controls_, &controls_, &controls_, &controls_, &controls_,
                            &controls_, &controls_});
    }

    Json ask(const DescribedOperation& operation, const std::string& query,
             const std::string& body) {
        std::string target = operation.path;
        for (auto at = target.find('{'); at != std::string::npos; at = target.find('{'))
            target.replace(at, target.find('}') - at + 1, "7");
        const auto response =
            table_.dispatch({operation.method, target + query, body, Caller{0, 0, 1, true}});
        return *Json::parse(response.body);
    }
    /// Refused with one of `codes`, before a control was reached, by a message with all of `texts`.
    void expect_refused(const DescribedOperation& operation, const std::string& query,
                        const std::string& body, const std::vector<std::string>& codes,
                        const std::vector<std::string>& texts) {
        const Json answer = ask(operation, query, body);
        const std::string asked = fmt::format("{}{} {}: {}", operation.operation, query,
                                              body.substr(0, 200), answer.dump().substr(0, 400));
        EXPECT_NE(std::ranges::find(codes, answer["code"].as_string()), codes.end()) << asked;
        for (const std::string& text : texts)
            EXPECT_NE(answer["message"].as_string().find(text), std::string::npos)
                << "'" << text << "' in " << asked;
        ++refused_;
    }
    const DescribedOperation& operation(const std::string& name) const {
        return *std::ranges::find(described_.operations, name, &DescribedOperation::operation);
    }

    const OpenApi described_ = read_openapi();
    Unreachable controls_;
    RouteTable table_{[] { return true; }};
    unsigned refused_ = 0;
};

/// The message says what is allowed.
std::vector<std::string> told(const DescribedField& field) {
    std::vector<std::string> texts{field.name};
    for (const auto& choice : field.choices) texts.push_back(choice);
    return texts;
}

TEST_F(BadInput, EachFieldRefusesEachMisfit) {
    for (const auto& operation : described_.operations) {
        if (operation.body.empty()) continue;
        for (const auto& field : described_.objects.at(operation.body)) {
            for (const std::string& misfit : misfits(field)) {
                Json body = least_good_body(operation.body);
                if (field.name == "SizeBytes" && operation.body == "CreateVolume")
                    body = Json::object();
                body.set(field.name, *Json::parse(misfit));
                expect_refused(operation, "", body.dump(),
                               {"InvalidParameterValue", "MissingParameter"}, told(field));
            }
        }
    }
    EXPECT_GT(refused_, 300u);
}

TEST_F(BadInput, EachFieldOfAProposalsRecordRefusesEachMisfit) {
    for (const auto& field : described_.objects.at("Membership")) {
        for (const std::string& misfit : misfits(field)) {
            Json body = least_good_body("Proposal");
            Json record = body["Membership"];
            body.set("Membership", record.set(field.name, *Json::parse(misfit)));
            expect_refused(operation("ProposeMembership"), "", body.dump(),
                           {"InvalidParameterValue", "MissingParameter"}, {field.name});
        }
    }
    for (const auto& field : described_.objects.at("Member")) {
        for (const std::string& misfit : misfits(field)) {
            Json body = least_good_body("Proposal");
            Json record = body["Membership"];
            Json member = record["Members"].items().front();
            member.set(field.name, *Json::parse(misfit));
            body.set("Membership", record.set("Members", Json::array().push(member)));
            expect_refused(operation("ProposeMembership"), "", body.dump(),
                           {"InvalidParameterValue"}, {field.name});
        }
    }
}

TEST_F(BadInput, EachNeededFieldIsMissedByItsName) {
    for (const auto& operation : described_.operations) {
        if (operation.body.empty()) continue;
        for (const auto& field : described_.objects.at(operation.body)) {
            if (!field.required) continue;
            Json body = least_good_body(operation.body);
            body.set(field.name, Json());
            expect_refused(operation, "", body.dump(), {"MissingParameter"},
                           {field.name + " is needed"});
        }
    }
    for (const char* field : {"Number", "Primary", "Members"}) {
        Json body = least_good_body("Proposal");
        Json record = body["Membership"];
        body.set("Membership", record.set(field, Json()));
        expect_refused(operation("ProposeMembership"), "", body.dump(), {"MissingParameter"},
                       {std::string(field) + " is needed"});
    }
    expect_refused(operation("CreateVolume"), "", "{}", {"MissingParameter"},
                   {"Size", "SizeBytes"});
    expect_refused(operation("AddPool"), "", "{}", {"MissingParameter"}, {"Path"});
    expect_refused(operation("ModifyVolume"), "", "{}", {"MissingParameter"},
                   {"Name, Durability, OnFull or DeleteOnTermination"});
}

/// The complaint names what is known, so it shows that the description has those and no others.
TEST_F(BadInput, UnknownFieldIsRefusedAndTheKnownOnesAreTheDescribedOnes) {
    for (const auto& operation : described_.operations) {
        if (operation.method == "GET" || operation.method == "DELETE") continue;
        std::set<std::string> described;
        if (!operation.body.empty()) {
            for (const auto& field : described_.objects.at(operation.body))
                described.insert(field.name);
        }
        Json body = least_good_body(operation.body);
        const Json answer = ask(operation, "", body.set("Nonsense", 1).dump());
        EXPECT_EQ(answer["code"].as_string(), "InvalidRequest") << operation.operation;
        const std::string message = answer["message"].as_string();
        const std::string head = "unknown field 'Nonsense'; known are ";
        ASSERT_TRUE(message.starts_with(head)) << operation.operation << ": " << message;
        std::set<std::string> known;
        std::string word;
        for (const char c : message.substr(head.size()) + ",") {
            if (c == ',')
                known.insert(std::exchange(word, ""));
            else if (c != ' ')
                word += c;
        }
        known.erase("none");
        EXPECT_EQ(known, described) << operation.operation;
    }
}

TEST_F(BadInput, BodiesThatAreNoObjectOrBelongNowhereAreRefused) {
    for (const auto& operation : described_.operations) {
        if (operation.method == "GET" || operation.method == "DELETE") {
            expect_refused(operation, "", "{}", {"InvalidRequest"}, {"takes no body"});
            continue;
        }
        for (const char* body : {"{", "nonsense", "{} {}", "{\"a\":\"\xff\"}"})
            expect_refused(operation, "", body, {"InvalidRequest"},
                           {"cannot read the body: not JSON"});
        for (const char* body : {"[]", "7", "null", "\"x\""})
            expect_refused(operation, "", body, {"InvalidRequest"},
                           {"must be a JSON object, not "});
        expect_refused(operation, "", R"({"DryRun": true, "DryRun": false})", {"InvalidRequest"},
                       {"the field 'DryRun' is there twice"});
        expect_refused(operation, "", std::string(33, '['), {"InvalidRequest"}, {"32 levels"});
    }
}

TEST_F(BadInput, EachQueryParameterRefusesWhatDoesNotFit) {
    for (const auto& operation : described_.operations) {
        expect_refused(operation, "?nonsense=1", "", {"InvalidRequest"},
                       {"unknown query parameter 'nonsense'"});
        for (const auto& [name, type] : operation.query) {
            // An empty dry_run must never be taken for none.
            expect_refused(operation, "?" + name, "", {"InvalidParameterValue"},
                           {name, "needs a value"});
            expect_refused(operation, "?" + name + "=", "", {"InvalidParameterValue"},
                           {name, "needs a value"});
            expect_refused(operation, fmt::format("?{}=1&{}=1", name, name), "", {"InvalidRequest"},
                           {name, "twice"});
            expect_refused(operation, "?" + name + "=%4", "", {"InvalidRequest"},
                           {"not percent-encoded"});
            if (type == "string") continue;
            for (const char* misfit : {"x", "-1", "1.5", "TRUE", "99999999999999999999"})
                expect_refused(operation, fmt::format("?{}={}", name, misfit), "",
                               {"InvalidParameterValue"},
                               {name + " must be", fmt::format("'{}' was given", misfit)});
        }
    }
    for (const auto& [query, allowed] : {std::pair("?limit=0", "from 1 to 10000"),
                                         {"?limit=10001", "from 1 to 10000"},
                                         {"?wait_ms=30001", "from 0 to 30000"}})
        expect_refused(operation("DescribeEvents"), query, "", {"InvalidParameterValue"},
                       {allowed});
}

TEST_F(BadInput, WhatExcludesEachOtherIsToldApart) {
    expect_refused(operation("CreateVolume"), "", R"({"Size": 1, "SizeBytes": 1073741824})",
                   {"InvalidParameterCombination"}, {"not both"});
    expect_refused(operation("CreateVolume"), "", R"({"SizeBytes": 1048577})",
                   {"InvalidParameterValue"}, {"whole MiB", "'1048577' was given"});
    for (const char* body :
         {R"({"Frontend": "nbd", "Queues": 1})", R"({"Frontend": "nbd", "Depth": 128})"})
        expect_refused(operation("AttachVolume"), "", body, {"InvalidParameterCombination"},
                       {"leave them out for NBD"});
    for (const char* body : {R"({"Queues": 9})", R"({"Queues": 2, "Depth": 513})"})
        expect_refused(operation("AttachVolume"), "", body, {"InvalidParameterCombination"},
                       {"Queues times Depth is at most 1024"});
    expect_refused(operation("AddPool"), "", R"({"Path": "x"})", {"InvalidParameterValue"},
                   {"Path must be absolute; 'x' was given"});
    expect_refused(operation("CreateVolume"), "",
                   fmt::format(R"({{"Size": 1, "ClientToken": "{}"}})", std::string(65, 't')),
                   {"InvalidParameterValue"}, {"at most 64 bytes; 65 were given"});
    Json body = least_good_body("Proposal");
    Json record = body["Membership"];
    body.set("Membership", record.set("VolumeId", "another"));
    expect_refused(operation("ProposeMembership"), "", body.dump(), {"InvalidParameterCombination"},
                   {"another volume than the path's"});
    for (const char* device : {"x", "-1", "99999999999", "ublkb", "ublkbx"}) {
        DescribedOperation remove = operation("RemoveOrphan");
        remove.path = fmt::format("/v1/rescue/{}", device);
        expect_refused(remove, "", "", {"InvalidParameterValue"},
                       {"a number or ublkbN", fmt::format("'{}' was given", device)});
    }
}

TEST_F(BadInput, WhatIsLongIsToldShort) {
    const std::string given(100'000, 'x');
    for (const std::string& body : {fmt::format(R"({{"Size": "{}"}})", given),
                                    fmt::format(R"({{"{}": 1, "Size": 1}})", given),
                                    fmt::format(R"({{"Size": 1, "OnFull": "{}"}})", given),
                                    fmt::format(R"({{"Size": 1, "Tags": ["{}"]}})", given),
                                    fmt::format(R"({{"{}": 1, "{}": 2}})", given, given),
                                    fmt::format("{{\"Size\": \"{}\xff\"}}", given)}) {
        const Json answer = ask(operation("CreateVolume"), "", body);
        EXPECT_TRUE(answer["code"].as_string().starts_with("Invalid"))
            << answer.dump().substr(0, 400);
        EXPECT_LT(answer["message"].as_string().size(), 500u)
            << answer["message"].as_string().substr(0, 400);
    }
}

}  // namespace
}  // namespace ublkd::api
