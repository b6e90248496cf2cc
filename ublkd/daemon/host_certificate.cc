#include "ublkd/daemon/host_certificate.h"

#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <ctime>

#include "ublkd/api/fields.h"
#include "ublkd/api/post.h"
#include "ublkd/base/files.h"
#include "ublkd/base/log.h"
#include "ublkd/daemon/cluster_files.h"

namespace ublkd::daemon {
namespace {

using api::ApiResult;
using api::refuse;
using std::chrono::seconds;

constexpr seconds kLongestPause = std::chrono::hours(1);

std::int64_t life_of(const io::CertificateTerm& term) { return term.ends_s - term.begins_s; }
std::int64_t due_of(const io::CertificateTerm& term) { return term.ends_s - life_of(term) / 3; }
/// From then on somebody should look at it.
std::int64_t near_end_of(const io::CertificateTerm& term) {
    return term.ends_s - life_of(term) / 6;
}
std::int64_t now_s() { return std::time(nullptr); }
std::string date_of(std::int64_t time_s) {
    return api::iso_time(static_cast<std::uint64_t>(std::max<std::int64_t>(time_s, 0)) * 1000);
}

Result<io::CertificateTerm> stored_term(const Configuration& configuration) {
    TRY_ASSIGN(const auto text, read_file(configuration.cluster_tls_certificate));
    return io::term_of(text);
}

/// What the authority gave, once it is sure that the next start can use it.
Result<void> store_certificate(const Configuration& configuration, const std::string& certificate) {
    TRY_ASSIGN(const auto authority, read_file(configuration.cluster_tls_ca));
    TRY_ASSIGN(const auto key, read_file(configuration.cluster_tls_key));
    TRY(io::check_certified(certificate, authority, key, certificate_uri(configuration.host_name)));
    return write_file_durably(configuration.cluster_tls_certificate, certificate, 0600);
}

Result<std::string> request_of(const Configuration& configuration) {
    TRY_ASSIGN(const auto key, read_file(configuration.cluster_tls_key));
    return io::make_request(key);
}

}  // namespace

std::expected<void, std::string> renew_own_certificate(const Configuration& configuration) {
    if (!configuration.enrolled) return {};
    const auto term = stored_term(configuration);
    if (term && now_s() < due_of(*term)) return {};
    if (!has_authority(configuration)) {
        if (term && now_s() < term->ends_s) return {};
        return std::unexpected(fmt::format(
            "{}: {}; without one this host does not get at the metadata: docs/cluster.md, \"A host "
            "that was away for too long\"",
            configuration.cluster_tls_certificate,
            term ? "it ended at " + date_of(term->ends_s) : to_string(term.error())));
    }
    const auto renewed = [&]() -> Result<void> {
        TRY_ASSIGN(const auto authority, read_authority(configuration));
        TRY_ASSIGN(const auto request, request_of(configuration));
        TRY_ASSIGN(const auto certificate,
                   io::certify(authority, request,
                               {.uri = certificate_uri(configuration.host_name),
                                .life = certificate_life()}));
        return store_certificate(configuration, certificate);
    }();
    if (renewed) return {};
    return std::unexpected(fmt::format("cannot renew {}: {}", configuration.cluster_tls_certificate,
                                       to_string(renewed.error())));
}

void HostCertificate::start(Enrolment* enrolment, EventLog* events, const Identity* identity) {
    if (!tls_) return;
    enrolment_ = enrolment;
    events_ = events;
    identity_ = identity;
    read_term();
    thread_ = std::thread([this] {
        (void)pthread_setname_np(pthread_self(), "certificate");
        serve();
    });
}

void HostCertificate::stop() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    wake_.notify_one();
    if (thread_.joinable()) thread_.join();
}

void HostCertificate::serve() {
    for (;;) {
        const seconds pause = look();
        tell_trouble();
        std::unique_lock lock(mutex_);
        if (wake_.wait_for(lock, pause, [this] { return stopping_; })) return;
    }
}

void HostCertificate::read_term() {
    const auto term = stored_term(*configuration_);
    const std::lock_guard lock(mutex_);
    if (term) term_ = *term;
}

/// Renews it where that is due. How long until the next look.
seconds HostCertificate::look() {
    std::optional<io::CertificateTerm> term;
    {
        const std::lock_guard lock(mutex_);
        term = term_;
    }
    if (!term || !renews_itself() || !identity_->initialized()) return kLongestPause;
    if (const std::int64_t left = due_of(*term) - now_s(); left > 0)
        return std::min(seconds(left), kLongestPause);
    const auto renewed = renew();
    {
        const std::lock_guard lock(mutex_);
        failure_ = renewed ? "" : renewed.error().message;
        if (renewed) told_ = false;
    }
    if (renewed) return seconds(1);
    log::warn("this host's certificate is not renewed: {}", renewed.error().message);
    return std::clamp(seconds((term->ends_s - now_s()) / 20), seconds(1), kLongestPause);
}

ApiResult<std::string> HostCertificate::ask(const std::string& request) {
    if (enrolment_ != nullptr) return enrolment_->sign(configuration_->host_name, request);
    API_TRY_ASSIGN(
        const auto answer,
        api::post(tls_.connecting.now(), {.address = configuration_->metadata,
                                          .path = api::kRenewPath,
                                          .body = api::Json::object().set("Request", request)}));
    return answer["Certificate"].as_string();
}

ApiResult<void> HostCertificate::renew() {
    const auto request = request_of(*configuration_);
    if (!request) return refuse(request.error(), configuration_->cluster_tls_key);
    API_TRY_ASSIGN(const auto certificate, ask(*request));
    const auto stored = store_certificate(*configuration_, certificate);
    if (!stored) return refuse(stored.error(), "cannot take the new certificate");
    const auto loaded = load_host_tls(*configuration_);
    if (!loaded) return refuse("InternalError", loaded.error());
    tls_.replace(*loaded);
    read_term();
    const std::string text = term_text();
    events_->add("certificate.renewed", identity_->host().to_string(), text);
    log::info("this host's certificate was renewed: {}", text);
    return {};
}

void HostCertificate::tell_trouble() {
    const std::string trouble = this->trouble();
    {
        const std::lock_guard lock(mutex_);
        if (trouble.empty() || told_) return;
        told_ = true;
    }
    log::warn("{}", trouble);
    if (identity_->initialized())
        events_->add("certificate.ending", identity_->host().to_string(), trouble);
}

std::string HostCertificate::trouble() {
    const std::lock_guard lock(mutex_);
    if (!term_ || now_s() < near_end_of(*term_)) return "";
    const bool ended = now_s() >= term_->ends_s;
    return fmt::format("this host's certificate {} {}{}{}", ended ? "ended at" : "ends at",
                       date_of(term_->ends_s), ended ? ", and other hosts refuse it" : "",
                       failure_.empty() ? "" : "; it could not be renewed: " + failure_);
}

std::string HostCertificate::term_text() {
    const std::lock_guard lock(mutex_);
    if (!term_) return "";
    return fmt::format("good until {}, serial {}", date_of(term_->ends_s), term_->serial);
}

}  // namespace ublkd::daemon
