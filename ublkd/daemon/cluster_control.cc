#include "ublkd/daemon/cluster_control.h"

#include <fmt/format.h>

#include "ublkd/api/post.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/daemon/cluster_files.h"
#include "ublkd/io/certificates.h"

namespace ublkd::daemon {

using api::ApiResult;
using api::refuse;

namespace {

constexpr auto kAuthorityLife = std::chrono::hours(24 * 3650);
constexpr const char* kMetadataPort = "7070";

ApiResult<void> check_listen(const char* field, const std::string& text) {
    if (is_cluster_address(text)) return {};
    return refuse("InvalidParameterValue",
                  fmt::format("{} must be an ADDRESS:PORT at which other hosts reach this one, the "
                              "address in digits; '{}' was given",
                              field, api::shown(text)));
}

/// Of `listen`, with the metadata's own port.
std::string beside(const std::string& listen) {
    return listen.substr(0, listen.rfind(':') + 1) + kMetadataPort;
}

}  // namespace

ApiResult<void> ClusterControl::check_is_free() {
    const Configuration& configuration = *core_.configuration;
    if (configuration.enrolled)
        return refuse("IncorrectState",
                      "this host is in a cluster: 'ebs-cli cluster token', at the host with its "
                      "authority, lets another host join");
    if (has_cluster_folder(configuration))
        return refuse(
            "IncorrectState",
            fmt::format("this host has entered a cluster: start ublkd again, and it is in "
                        "it ({})",
                        configuration.cluster_folder()));
    if (configuration.has_cluster_settings())
        return refuse("IncorrectState",
                      fmt::format("this host's [cluster] is set by hand in {}: take that out, and "
                                  "start ublkd again",
                                  configuration.file));
    return {};
}

/// This host's name, which it gets here where it has none yet.
ApiResult<std::string> ClusterControl::be_named(const std::string& wanted) {
    const std::string name = wanted.empty() ? core_.configuration->host_name : wanted;
    if (!core_.identity->initialized()) {
        if (auto trouble = trouble_with_certified_name(name); !trouble.empty())
            return refuse("InvalidParameterValue", std::move(trouble));
        API_TRY(system_->init_as(name, {}));
        return name;
    }
    const auto record = core_.store->get<metadata::HostRecord>(core_.identity->host());
    if (!record) return refuse(record.error(), "cannot read who this host is");
    if (!wanted.empty() && wanted != (*record)->name)
        return refuse("IncorrectState",
                      fmt::format("this host was initialized as '{}', and keeps that name: leave "
                                  "Name out",
                                  (*record)->name));
    if (const auto trouble = trouble_with_certified_name((*record)->name); !trouble.empty())
        return refuse("IncorrectState",
                      fmt::format("this host is named '{}': {}", (*record)->name, trouble));
    return (*record)->name;
}

ApiResult<api::ClusterView> ClusterControl::init_cluster(const api::InitClusterRequest& request) {
    const std::lock_guard lock(one_);
    API_TRY(check_is_free());
    API_TRY(check_listen("Listen", request.listen));
    const std::string metadata =
        request.metadata_listen.empty() ? beside(request.listen) : request.metadata_listen;
    API_TRY(check_listen("MetadataListen", metadata));
    if (metadata == request.listen)
        return refuse(
            "InvalidParameterCombination",
            fmt::format("Listen and MetadataListen are two ports; '{}' was given for both",
                        metadata));
    API_TRY_ASSIGN(const std::string name, be_named(request.name));
    const auto authority = io::make_authority("ublkd cluster", kAuthorityLife);
    const std::string key = io::make_private_key();
    const auto made = [&]() -> Result<std::string> {
        TRY_ASSIGN(const auto asked, io::make_request(key));
        TRY_ASSIGN(const auto certificate,
                   io::certify(authority, asked,
                               {.uri = certificate_uri(name), .life = certificate_life()}));
        TRY(make_cluster_folder(
            *core_.configuration,
            {{kAuthorityFile, authority.certificate},
             {kAuthorityKeyFile, authority.key},
             {kHostCertificateFile, certificate},
             {kHostKeyFile, key},
             {kSettingsFile, cluster_settings_text({.name = name,
                                                    .listen = request.listen,
                                                    .metadata = "",
                                                    .metadata_listen = metadata})}}));
        TRY_ASSIGN(const auto fingerprint, io::fingerprint_of(authority.certificate));
        return hex_of(fingerprint);
    }();
    if (!made) return refuse(made.error(), "cannot make " + core_.configuration->cluster_folder());
    core_.events->add("cluster.initialized", core_.identity->host().to_string(), *made);
    return api::ClusterView{name, request.listen, metadata, *made};
}

ApiResult<api::JoinTokenView> ClusterControl::make_token(std::uint64_t life_seconds) {
    if (enrolment_ != nullptr) return enrolment_->make_token(life_seconds);
    if (has_cluster_folder(*core_.configuration) && !core_.configuration->enrolled)
        return refuse("IncorrectState", "the cluster begins when ublkd is started again");
    return refuse("IncorrectState",
                  "this host does not have a cluster's authority: it is where 'ebs-cli cluster "
                  "init' was");
}

/// The other side is believed by the token's fingerprint, and what it gives is held against it.
ApiResult<api::Admitted> ClusterControl::ask(const JoinToken& token, const std::string& name,
                                             const std::string& key) {
    const auto request = io::make_request(key);
    if (!request) return refuse(request.error(), "cannot make a request");
    API_TRY_ASSIGN(const auto answer,
                   api::post(io::TlsContext::client_of(token.authority),
                             {.address = fmt::format("https://{}", token.address),
                              .path = api::kAdmitPath,
                              .body = api::Json::object()
                                          .set("Token", token.id.to_string())
                                          .set("Secret", hex_of(token.secret))
                                          .set("Name", name)
                                          .set("Request", *request)}));
    api::Admitted admitted{answer["HostId"].as_string(), answer["Certificate"].as_string(),
                           answer["Authority"].as_string()};
    const auto fingerprint = io::fingerprint_of(admitted.authority);
    const bool known = fingerprint && (*fingerprint == token.authority ||
                                       faults::rule_off("rule.join_fingerprint"));
    if (!known || !HostId::parse(admitted.host_id) ||
        !io::check_certified(admitted.certificate, admitted.authority, key, certificate_uri(name)))
        return refuse("Unavailable",
                      fmt::format("{} gave no certificate that is good here: nothing is kept of it",
                                  token.address));
    return admitted;
}

ApiResult<api::ClusterView> ClusterControl::join(const api::JoinClusterRequest& request) {
    const std::lock_guard lock(one_);
    API_TRY(check_is_free());
    if (core_.identity->initialized())
        return refuse("IncorrectState",
                      "this host is initialized, with metadata of its own: a host joins a cluster "
                      "before its first 'ebs-cli init'");
    API_TRY(check_listen("Listen", request.listen));
    const std::string name = request.name.empty() ? core_.configuration->host_name : request.name;
    if (auto trouble = trouble_with_certified_name(name); !trouble.empty())
        return refuse("InvalidParameterValue", std::move(trouble));
    auto token = JoinToken::parse(request.token);
    if (!token) return refuse("InvalidParameterValue", std::move(token.error()));
    const std::string key = io::make_private_key();
    API_TRY_ASSIGN(const auto admitted, ask(*token, name, key));
    (void)faults::hit("cluster.admitted");
    const std::string metadata = fmt::format("https://{}", token->address);
    const auto kept = make_cluster_folder(
        *core_.configuration, {{kAuthorityFile, admitted.authority},
                               {kHostCertificateFile, admitted.certificate},
                               {kHostKeyFile, key},
                               {kJoinedHostFile, admitted.host_id + "\n"},
                               {kSettingsFile, cluster_settings_text({.name = name,
                                                                      .listen = request.listen,
                                                                      .metadata = metadata,
                                                                      .metadata_listen = ""})}});
    if (!kept)
        return refuse(kept.error(),
                      fmt::format("cannot make {}, and the token is used: join again with another",
                                  core_.configuration->cluster_folder()));
    return api::ClusterView{name, request.listen, metadata, hex_of(token->authority)};
}

}  // namespace ublkd::daemon
