#include "ublkd/daemon/host_directory.h"

#include <charconv>

#include "ublkd/peer/greeting.h"

namespace ublkd::daemon {

Result<void> HostDirectory::refresh() {
    TRY_ASSIGN(const auto records, store_->list<metadata::HostRecord>());
    std::map<HostId, Known> known;
    for (const auto& record : records) {
        Known& host = known[record.id];
        host.name = record.name;
        const auto colon = record.address.rfind(':');
        if (colon == std::string::npos) continue;
        host.address = record.address.substr(0, colon);
        if (host.address.starts_with('['))
            host.address = host.address.substr(1, host.address.size() - 2);
        const char* const end = record.address.data() + record.address.size();
        (void)std::from_chars(record.address.data() + colon + 1, end, host.port);
    }
    const std::lock_guard lock(mutex_);
    known_ = std::move(known);
    return {};
}

bool HostDirectory::knows(HostId host) {
    if (!name_of(host).empty()) return true;
    return refresh() && !name_of(host).empty();
}

io::Task<Result<void>> HostDirectory::connect(io::Socket* into, io::Reactor* reactor, HostId host,
                                              io::Clock::time_point deadline) {
    Known known;
    {
        const std::lock_guard lock(mutex_);
        const auto found = known_.find(host);
        if (found != known_.end()) known = found->second;
    }
    if (known.port == 0) co_return fail(Errc::kNotFound, "where the host listens");
    CO_TRY_ASSIGN(*into, io::Socket::connect_tcp(*reactor, known.address, known.port));
    if (!tls_) co_return Result<void>{};
    auto shaking = into->start_tls(tls_.connecting.now(), deadline);
    const Result<io::TlsPeer> peer = co_await shaking;
    if (!peer) co_return fail(peer.error());
    if (!is_certificate_of(known.name, *peer)) {
        peer::refuse(into, peer::Reason::kHost);
        co_return fail(Errc::kNotPermitted, "the certificate there is not that host's");
    }
    co_return Result<void>{};
}

bool HostDirectory::has_proven(HostId host, const io::TlsPeer& peer) {
    return !tls_ || is_certificate_of(name_of(host), peer);
}

std::string HostDirectory::name_of(HostId host) {
    const std::lock_guard lock(mutex_);
    const auto found = known_.find(host);
    return found == known_.end() ? "" : found->second.name;
}

}  // namespace ublkd::daemon
