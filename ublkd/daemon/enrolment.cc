#include "ublkd/daemon/enrolment.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "ublkd/api/fields.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/daemon/cluster_files.h"
#include "ublkd/daemon/host_records.h"
#include "ublkd/daemon/host_tls.h"
#include "ublkd/daemon/join_token.h"

namespace ublkd::daemon {

using api::ApiResult;
using api::refuse;
using metadata::HostRecord;
using metadata::JoinTokenRecord;
using metadata::Transaction;

namespace {

constexpr std::uint64_t kKeptMs = 24ull * 3600 * 1000;  // after its end, to say what became of it

constexpr const char* kAnother =
    "'ebs-cli cluster token', at the host with the cluster's authority, makes another";

}  // namespace

struct Enrolment::Claim {
    JoinTokenId token;
    io::Sha256 hash{};
    std::string name;
    HostId host;  // to be
    JoinTokenRecord record{};
    std::vector<HostRecord> left{};  // of its name, and never came
    api::ApiError refused{};
};

ApiResult<api::JoinTokenView> Enrolment::make_token(std::uint64_t life_seconds) {
    const auto authority = read_authority(*configuration_);
    if (!authority)
        return refuse(
            "IncorrectState",
            "this host has no authority of a cluster: 'ebs-cli cluster token' is asked at "
            "the host where 'ebs-cli cluster init' was");
    JoinToken token;
    const auto fingerprint = io::fingerprint_of(authority->certificate);
    if (!fingerprint) return refuse(fingerprint.error(), "cannot read the authority");
    token.id = JoinTokenId::random();
    token.authority = *fingerprint;
    token.secret = io::random_secret();
    token.address = configuration_->metadata_listen();
    const std::uint64_t now = metadata::now_ms();
    const std::uint64_t ends = now + life_seconds * 1000;
    const auto stored = store_->write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(const auto known, tx.list<JoinTokenRecord>());
        for (const auto& old : known) {
            if (old.ends_ms + kKeptMs > now) continue;
            TRY(tx.erase(old));
        }
        JoinTokenRecord record{.id = token.id,
                               .secret_hash = hex_of(io::sha256(token.secret)),
                               .ends_ms = ends,
                               .created_ms = now};
        TRY(tx.put(record));
        return EventLog::add_in(tx, "cluster.token", token.id.to_string(),
                                "one host may join until " + api::iso_time(ends));
    });
    if (!stored) return refuse(stored.error(), "cannot store the token");
    return api::JoinTokenView{token.text(), token.address, ends};
}

/// Whether the claim is good. Not: kNotPermitted, and `refused` says why.
Result<void> Enrolment::judge(Transaction& tx, Claim& claim) {
    const auto no = [&](std::string code, std::string message) {
        claim.refused = {std::move(code), std::move(message)};
        return fail(Errc::kNotPermitted, "a host is not admitted");
    };
    claim.refused = {};
    TRY_ASSIGN(const auto record, tx.get<JoinTokenRecord>(claim.token));
    const auto hash = record ? sha256_of_hex(record->secret_hash) : std::nullopt;
    if (!hash || !io::is_same_secret(*hash, claim.hash))
        return no("UnauthorizedOperation",
                  fmt::format("this token is not known here: {}", kAnother));
    if (record->used_by && !faults::rule_off("rule.token_once"))
        return no("IncorrectState",
                  fmt::format("this token was used, and is good for one host: {}", kAnother));
    if (record->ends_ms <= metadata::now_ms())
        return no("IncorrectState", fmt::format("this token was good until {}: {}",
                                                api::iso_time(record->ends_ms), kAnother));
    claim.record = *record;
    TRY_ASSIGN(claim.left, tx.list<HostRecord>(metadata::where("name", claim.name)));
    for (const HostRecord& other : claim.left) {
        TRY_ASSIGN(const auto pools,
                   tx.list<metadata::PoolRecord>(metadata::where("host", other.id)));
        if (other.id == identity_->host() || !other.address.empty() || !pools.empty())
            return no("AlreadyExists",
                      fmt::format("another host is named '{}': give this one another name (--name)",
                                  claim.name));
    }
    return {};
}

Result<void> Enrolment::admit_in(Transaction& tx, Claim& claim) {
    TRY(judge(tx, claim));
    for (const HostRecord& other : claim.left) {
        TRY(erase_host(tx, other.id));
    }
    claim.record.used_by = claim.host;
    TRY(tx.put(claim.record));
    TRY(put_host(tx, claim.host, claim.name));
    return EventLog::add_in(tx, "host.admitted", claim.host.to_string(), claim.name);
}

ApiResult<api::Admitted> Enrolment::admit(const api::AdmitRequest& request) {
    const auto id = JoinTokenId::parse(request.token);
    const auto secret = sha256_of_hex(request.secret);
    if (!id || !secret) return refuse("InvalidParameterValue", "this is no token of ublkd");
    if (auto trouble = trouble_with_certified_name(request.name); !trouble.empty())
        return refuse("InvalidParameterValue", std::move(trouble));
    Claim claim{
        .token = *id, .hash = io::sha256(*secret), .name = request.name, .host = HostId::random()};
    const auto refused = [&](const Error& error) -> std::unexpected<api::ApiError> {
        if (!claim.refused.code.empty()) return refuse(claim.refused);
        return refuse(error, "cannot admit the host");
    };
    // Nothing is signed for who has no token.
    const auto good = store_->read([&](Transaction& tx) { return judge(tx, claim); });
    if (!good) return refused(good.error());
    API_TRY_ASSIGN(const auto certificate, sign(claim.name, request.request));
    const auto authority = read_authority(*configuration_);
    if (!authority) return refuse(authority.error(), "cannot read the authority");
    (void)faults::hit("cluster.before_admission");
    const auto stored = store_->write([&](Transaction& tx) { return admit_in(tx, claim); });
    if (!stored) return refused(stored.error());
    (void)faults::hit("cluster.after_admission");
    return api::Admitted{claim.host.to_string(), certificate, authority->certificate};
}

ApiResult<std::string> Enrolment::renew(const std::vector<std::string>& certified,
                                        const std::string& request) {
    if (faults::hit("cluster.renew") != 0) return refuse("Unavailable", "a fault point is armed");
    const auto hosts = store_->list<HostRecord>();
    if (!hosts) return refuse(hosts.error(), "cannot list the hosts");
    for (const HostRecord& host : *hosts) {
        if (std::ranges::find(certified, certificate_uri(host.name)) != certified.end())
            return sign(host.name, request);
    }
    return refuse("UnauthorizedOperation", "the certificate shown is no host's of this cluster");
}

ApiResult<std::string> Enrolment::sign(const std::string& host_name, const std::string& request) {
    const auto authority = read_authority(*configuration_);
    if (!authority) return refuse(authority.error(), "cannot read the authority");
    const auto made = io::certify(*authority, request,
                                  {.uri = certificate_uri(host_name), .life = certificate_life()});
    if (!made) return refuse(made.error(), "cannot sign");
    return *made;
}

}  // namespace ublkd::daemon
