// This host's certificate for others: how long it is good, and its next one. One that the cluster's
// authority has signed ('ebs-cli cluster') is renewed at two thirds of its life: by the authority
// where it is here, else over the valid one at the host that has it. New connections use the new
// one, those that are there go on. One that was made by hand is watched alone.
//
// Owner: Daemon, which stops it before the store. A thread of its own; trouble() from any.
// docs/cluster.md, "Certificates".
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "ublkd/api/errors.h"
#include "ublkd/daemon/configuration.h"
#include "ublkd/daemon/enrolment.h"
#include "ublkd/daemon/event_log.h"
#include "ublkd/daemon/host_tls.h"
#include "ublkd/io/certificates.h"

namespace ublkd::daemon {

class HostCertificate {
  public:
    HostCertificate(const Configuration* configuration, HostTls tls)
        : configuration_(configuration), tls_(std::move(tls)) {}
    HostCertificate(const HostCertificate&) = delete;
    HostCertificate& operator=(const HostCertificate&) = delete;
    ~HostCertificate() { stop(); }

    /// `enrolment`: where the authority is here.
    void start(Enrolment* enrolment, EventLog* events, const Identity* identity);
    void stop();

    /// Near its end, or beyond: a sentence, else "".
    std::string trouble();
    /// Until when it is good; "" where there is none.
    std::string term_text();
    bool renews_itself() const { return configuration_->enrolled; }

  private:
    void serve();
    void read_term();
    std::chrono::seconds look();
    api::ApiResult<std::string> ask(const std::string& request);
    api::ApiResult<void> renew();
    void tell_trouble();

    const Configuration* configuration_;
    HostTls tls_;
    Enrolment* enrolment_ = nullptr;
    EventLog* events_ = nullptr;
    const Identity* identity_ = nullptr;
    std::mutex mutex_;
    std::condition_variable wake_;
    bool stopping_ = false;
    std::optional<io::CertificateTerm> term_;
    std::string failure_;  // of the last try to renew it
    bool told_ = false;    // of the trouble
    std::thread thread_;
};

/// Before anybody needs it: at the host with the authority a certificate that has ended, or will
/// soon, is renewed; elsewhere one that has ended is an error. That is a sentence.
std::expected<void, std::string> renew_own_certificate(const Configuration& configuration);

}  // namespace ublkd::daemon
