#include "ublkd/replication/applied_ids.h"

#include <algorithm>
#include <atomic>
#include <utility>

namespace ublkd::replication {
namespace {

/// What follows is written after what came before: a process that dies in between leaves no
/// mixture.
void in_order() { std::atomic_signal_fence(std::memory_order_seq_cst); }

/// `piece` without `range`, which overlaps it: none, one or two pieces.
void append_rest(std::vector<Range>& rest, const Range& piece, const Range& range) {
    if (piece.offset_bytes < range.offset_bytes)
        rest.push_back({piece.offset_bytes, range.offset_bytes - piece.offset_bytes});
    if (range.end_bytes() < piece.end_bytes())
        rest.push_back({range.end_bytes(), piece.end_bytes() - range.end_bytes()});
}

}  // namespace

AppliedIds::AppliedIds(Table* table) : table_(table) {
    for (const ClientTable& client : table_->clients) {
        if (client.client_start == 0) continue;  // its memory is not touched
        uses_ = std::max(uses_, client.last_use);
        for (const Entry& entry : client.entries) orders_ = std::max(orders_, entry.order);
    }
    more_used_ = static_cast<std::size_t>(
        std::count_if(table_->more.begin(), table_->more.end(),
                      [](const NotedId& piece) { return piece.id.sequence != 0; }));
    take_stock();
}

AppliedIds::ClientTable* AppliedIds::find(std::uint64_t client_start) const {
    if (newest_ != nullptr && newest_->client_start == client_start) return newest_;
    for (ClientTable& client : table_->clients) {
        if (client.client_start == client_start) return newest_ = &client;
    }
    return nullptr;
}

AppliedIds::Entry* AppliedIds::find(const RequestId& id) const {
    if (id.sequence == 0) return nullptr;
    ClientTable* const client = find(id.client_start);
    if (client == nullptr) return nullptr;
    Entry& entry = client->entries[id.sequence % kWindow];
    return entry.sequence == id.sequence ? &entry : nullptr;
}

AppliedIds::Entry* AppliedIds::place(const RequestId& id) {
    if (id.sequence == 0) return nullptr;
    ClientTable* client = find(id.client_start);
    if (client == nullptr) {
        client = &*std::min_element(
            table_->clients.begin(), table_->clients.end(),
            [](const ClientTable& a, const ClientTable& b) { return a.last_use < b.last_use; });
        client->client_start = 0;
        in_order();
        client->entries.fill(Entry{});
        in_order();
        client->client_start = id.client_start;
    }
    if (client->last_use != uses_ || uses_ == 0) client->last_use = ++uses_;
    Entry& entry = client->entries[id.sequence % kWindow];
    return entry.sequence > id.sequence ? nullptr : &entry;
}

void AppliedIds::forget_more(const RequestId& id) {
    if (more_used_ == 0) return;
    for (NotedId& piece : table_->more) {
        if (piece.id.sequence == 0 || piece.id != id) continue;
        piece.id.sequence = 0;
        --more_used_;
    }
}

bool AppliedIds::applied(const RequestId& id) const {
    const Entry* const entry = find(id);
    return entry != nullptr && entry->applied;
}

std::optional<std::vector<Range>> AppliedIds::pieces(const RequestId& id) const {
    const Entry* const entry = find(id);
    if (entry == nullptr || entry->applied) return std::nullopt;
    std::vector<Range> pieces{entry->range};
    if (more_used_ == 0) return pieces;
    for (const NotedId& piece : table_->more) {
        if (piece.id.sequence != 0 && piece.id == id) pieces.push_back(piece.range);
    }
    return pieces;
}

void AppliedIds::note_applied(const RequestId& id, const Range& range) {
    Entry* const entry = place(id);
    if (entry == nullptr) return;
    if (entry->sequence != id.sequence) {
        entry->sequence = 0;
        in_order();
        entry->order = ++orders_;
    }
    entry->range = range;
    entry->applied = true;
    in_order();
    entry->sequence = id.sequence;
    forget_more(id);
}

void AppliedIds::note_perhaps(const RequestId& id, const Range& piece,
                              std::span<const Range> more) {
    Entry* const entry = place(id);
    if (entry == nullptr) return;
    if (entry->sequence != id.sequence) entry->order = ++orders_;
    entry->sequence = 0;
    in_order();
    forget_more(id);
    for (const Range& another : more) {
        const auto free = std::find_if(table_->more.begin(), table_->more.end(),
                                       [](const NotedId& noted) { return noted.id.sequence == 0; });
        if (free == table_->more.end()) break;
        free->range = another;
        in_order();
        free->id = id;
        ++more_used_;
    }
    entry->range = piece;
    entry->applied = false;
    in_order();
    entry->sequence = id.sequence;
}

void AppliedIds::erase(const RequestId& id) {
    if (Entry* const entry = find(id); entry != nullptr) entry->sequence = 0;
    forget_more(id);
}

void AppliedIds::overwritten(const Range& range, const RequestId& by) {
    if (doubts_.empty()) return;
    const Entry* const later = find(by);
    const std::uint64_t from =
        range.offset_bytes - std::min(range.offset_bytes, longest_doubt_bytes_);
    std::vector<RequestId> met;
    for (auto at = doubts_.lower_bound(from);
         at != doubts_.end() && at->first < range.end_bytes();) {
        const Entry* const doubted = find(at->second.id);
        const bool earlier =
            doubted == nullptr || later == nullptr || doubted->order <= later->order;
        if (at->second.end_bytes <= range.offset_bytes || !earlier) {
            ++at;
            continue;
        }
        met.push_back(at->second.id);
        at = doubts_.erase(at);
    }
    for (const RequestId& id : met) {
        const std::optional<std::vector<Range>> before = pieces(id);
        if (!before) continue;
        std::vector<Range> rest;
        for (const Range& piece : *before) {
            if (piece.overlaps(range)) append_rest(rest, piece, range);
        }
        for (const Range& piece : rest)
            doubts_.emplace(piece.offset_bytes, Doubt{piece.end_bytes(), id});
        for (const Range& piece : *before) {
            if (!piece.overlaps(range)) rest.push_back(piece);  // it is still among doubts_
        }
        if (rest.empty()) {
            note_applied(id, before->front());
        } else {
            note_perhaps(id, rest.front(), std::span(rest).subspan(1));
        }
    }
}

IdList AppliedIds::list() const {
    std::vector<std::pair<std::uint64_t, RequestId>> noted;
    for (const ClientTable& client : table_->clients) {
        if (client.client_start == 0) continue;
        for (const Entry& entry : client.entries) {
            if (entry.sequence != 0)
                noted.emplace_back(entry.order, RequestId{client.client_start, entry.sequence});
        }
    }
    std::sort(noted.begin(), noted.end());
    IdList ids;
    for (const auto& [order, id] : noted) {
        const Entry& entry = *find(id);
        ids.push_back({id, entry.applied, entry.range});
        if (entry.applied || more_used_ == 0) continue;
        for (const NotedId& piece : table_->more) {
            if (piece.id.sequence != 0 && piece.id == id) ids.push_back(piece);
        }
    }
    return ids;
}

void AppliedIds::learn(const IdList& list) {
    for (std::size_t i = 0; i < list.size();) {
        const RequestId id = list[i].id;
        const bool applied_there = list[i].applied;
        std::vector<Range> pieces;
        for (; i < list.size() && list[i].id == id; ++i) pieces.push_back(list[i].range);
        // Noted here after what that member does not know, and in its order.
        if (Entry* const known = find(id); known != nullptr) {
            known->order = ++orders_;
            if (known->applied || applied_there) continue;  // own pieces are a part of the whole
        }
        note_perhaps(id, pieces.front(), std::span(pieces).subspan(1));
    }
    take_stock();
}

void AppliedIds::join(const IdList& list) {
    for (std::size_t i = 0; i < list.size();) {
        const RequestId id = list[i].id;
        const bool applied_there = list[i].applied;
        std::vector<Range> pieces;
        for (; i < list.size() && list[i].id == id; ++i) pieces.push_back(list[i].range);
        if (Entry* const known = find(id); known != nullptr) {
            known->order = ++orders_;
        } else if (applied_there) {
            note_applied(id, pieces.front());
        } else {
            note_perhaps(id, pieces.front(), std::span(pieces).subspan(1));
        }
    }
    take_stock();
}

void AppliedIds::agree(const IdList& list) {
    std::vector<RequestId> there;
    for (const NotedId& noted : list) {
        if (noted.applied) there.push_back(noted.id);
    }
    std::sort(there.begin(), there.end());
    for (ClientTable& client : table_->clients) {
        if (client.client_start == 0) continue;
        for (Entry& entry : client.entries) {
            const RequestId id{client.client_start, entry.sequence};
            if (entry.sequence != 0 && entry.applied &&
                !std::binary_search(there.begin(), there.end(), id))
                entry.applied = false;
        }
    }
    learn(list);
}

void AppliedIds::take_stock() {
    doubts_.clear();
    longest_doubt_bytes_ = 0;
    for (const NotedId& noted : list()) {
        if (noted.applied) continue;
        doubts_.emplace(noted.range.offset_bytes, Doubt{noted.range.end_bytes(), noted.id});
        longest_doubt_bytes_ = std::max(longest_doubt_bytes_, noted.range.length_bytes);
    }
}

void AppliedIds::clear() {
    for (ClientTable& client : table_->clients) {
        if (client.last_use == 0) continue;  // never used
        client.client_start = 0;
        client.last_use = 0;
        client.entries.fill(Entry{});
    }
    table_->more.fill(NotedId{});
    more_used_ = 0;
    newest_ = nullptr;
    uses_ = 0;
    orders_ = 0;
    take_stock();
}

}  // namespace ublkd::replication
