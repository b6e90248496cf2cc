#include "ublkd/replication/applied_ids.h"

#include <algorithm>
#include <set>

#include "ublkd/base/fault_injection.h"

namespace ublkd::replication {

AppliedIds::AppliedIds(Table* table) : table_(table) {
    for (const ClientTable& client : table_->clients) uses_ = std::max(uses_, client.last_use);
}

AppliedIds::ClientTable* AppliedIds::find(std::uint64_t client_start) const {
    if (newest_ != nullptr && newest_->client_start == client_start) return newest_;
    for (ClientTable& client : table_->clients) {
        if (client.client_start == client_start) return newest_ = &client;
    }
    return nullptr;
}

bool AppliedIds::knows(const RequestId& id) const {
    if (id.sequence == 0 || faults::rule_off("rule.retry_ids")) return false;
    const ClientTable* const client = find(id.client_start);
    return client != nullptr && client->sequences[id.sequence % kWindow] == id.sequence;
}

void AppliedIds::insert(const RequestId& id) {
    if (id.sequence == 0) return;
    ClientTable* client = find(id.client_start);
    if (client == nullptr) {
        client = &*std::min_element(
            table_->clients.begin(), table_->clients.end(),
            [](const ClientTable& a, const ClientTable& b) { return a.last_use < b.last_use; });
        client->client_start =
            0;  // a process that dies in here leaves an unused table, not a mixed one
        client->sequences.fill(0);
        client->client_start = id.client_start;
    }
    if (client->last_use != uses_ || uses_ == 0) client->last_use = ++uses_;
    client->sequences[id.sequence % kWindow] = id.sequence;
}

void AppliedIds::erase(const RequestId& id) {
    if (ClientTable* const client = find(id.client_start);
        client != nullptr && client->sequences[id.sequence % kWindow] == id.sequence)
        client->sequences[id.sequence % kWindow] = 0;
}

std::vector<RequestId> AppliedIds::list() const {
    std::vector<RequestId> ids;
    for (const ClientTable& client : table_->clients) {
        if (client.client_start == 0) continue;
        for (const std::uint64_t sequence : client.sequences) {
            if (sequence != 0) ids.push_back(RequestId{client.client_start, sequence});
        }
    }
    return ids;
}

void AppliedIds::keep_only(std::span<const RequestId> ids) {
    const std::set<RequestId> keep(ids.begin(), ids.end());
    for (const RequestId& id : list()) {
        if (!keep.contains(id)) erase(id);
    }
}

void AppliedIds::clear() {
    for (ClientTable& client : table_->clients) {
        client.client_start = 0;
        client.last_use = 0;
        client.sequences.fill(0);
    }
    newest_ = nullptr;
    uses_ = 0;
}

}  // namespace ublkd::replication
