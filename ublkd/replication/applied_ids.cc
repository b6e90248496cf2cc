#include "ublkd/replication/applied_ids.h"

#include <algorithm>
#include <atomic>
#include <limits>
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

std::vector<Range> within(const std::vector<Range>& pieces, const Range& range) {
    std::vector<Range> common;
    for (const Range& piece : pieces) {
        if (!piece.overlaps(range)) continue;
        const std::uint64_t begin = std::max(piece.offset_bytes, range.offset_bytes);
        common.push_back({begin, std::min(piece.end_bytes(), range.end_bytes()) - begin});
    }
    return common;
}

std::vector<Range> without(const std::vector<Range>& pieces, const Range& range) {
    std::vector<Range> rest;
    for (const Range& piece : pieces) {
        if (piece.overlaps(range)) {
            append_rest(rest, piece, range);
        } else {
            rest.push_back(piece);
        }
    }
    return rest;
}

/// Ascending, and none touches the next one.
std::vector<Range> united(std::vector<Range> pieces, const std::vector<Range>& others) {
    pieces.insert(pieces.end(), others.begin(), others.end());
    std::sort(pieces.begin(), pieces.end());
    std::vector<Range> all;
    for (const Range& piece : pieces) {
        if (all.empty() || all.back().end_bytes() < piece.offset_bytes) {
            all.push_back(piece);
        } else {
            Range& last = all.back();
            last.length_bytes = std::max(last.end_bytes(), piece.end_bytes()) - last.offset_bytes;
        }
    }
    return all;
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
    std::vector<Range> pieces{entry->piece};
    if (more_used_ == 0) return pieces;
    for (const NotedId& noted : table_->more) {
        if (noted.id.sequence != 0 && noted.id == id) pieces.push_back(noted.piece);
    }
    return pieces;
}

void AppliedIds::note_applied(const RequestId& id, const Range& change) {
    Entry* const entry = place(id);
    if (entry == nullptr) return;
    if (entry->sequence != id.sequence) {
        entry->sequence = 0;
        in_order();
        entry->order = ++orders_;
    }
    entry->change = change;
    entry->applied = true;
    in_order();
    entry->sequence = id.sequence;
    forget_more(id);
}

void AppliedIds::note_perhaps(const RequestId& id, const Range& change, const Range& piece,
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
        free->piece = another;
        in_order();
        free->id = id;
        ++more_used_;
    }
    entry->change = change;
    entry->piece = piece;
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
        set_pieces(id, find(id)->change, rest);
    }
}

IdList AppliedIds::list() const { return about({0, std::numeric_limits<std::uint64_t>::max()}); }

IdList AppliedIds::about(const Range& range) const {
    std::vector<std::pair<std::uint64_t, RequestId>> noted;
    for (const ClientTable& client : table_->clients) {
        if (client.client_start == 0) continue;
        for (const Entry& entry : client.entries) {
            if (entry.sequence != 0 && entry.change.overlaps(range))
                noted.emplace_back(entry.order, RequestId{client.client_start, entry.sequence});
        }
    }
    std::sort(noted.begin(), noted.end());
    IdList ids;
    for (const auto& [order, id] : noted) {
        const Entry& entry = *find(id);
        ids.push_back({id, entry.applied, entry.change, entry.piece});
        if (entry.applied || more_used_ == 0) continue;
        for (const NotedId& more : table_->more) {
            if (more.id.sequence != 0 && more.id == id)
                ids.push_back({id, false, entry.change, more.piece});
        }
    }
    return ids;
}

void AppliedIds::agree(const IdList& list) {
    const IdList here = this->list();
    const auto in_this_order = [&, before = orders_](const IdList& ids) {
        for (const NotedId& noted : ids) {
            Entry* const known = find(noted.id);
            if (known == nullptr) {
                note_perhaps(noted.id, noted.change, noted.change);
            } else if (known->order <= before) {
                known->order = ++orders_;
            }
        }
    };
    in_this_order(list);
    in_this_order(here);
    take_stock();
}

/// True where that is something new.
bool AppliedIds::set_pieces(const RequestId& id, const Range& change,
                            const std::vector<Range>& rest) {
    if (rest.empty() && applied(id)) return false;
    if (!rest.empty() && pieces(id) == rest) return false;
    if (rest.empty()) {
        note_applied(id, change);
    } else {
        note_perhaps(id, change, rest.front(), std::span(rest).subspan(1));
    }
    return true;
}

void AppliedIds::may_be_copied(const Range& range, const IdList& there) {
    follow(range, there, false);
}

void AppliedIds::copied(const Range& range, const IdList& there) { follow(range, there, true); }

void AppliedIds::copied_while_joining(const Range& range, const IdList& there) {
    for (const NotedId& noted : about(range)) {
        const bool applied = std::any_of(there.begin(), there.end(), [&](const NotedId& known) {
            return known.id == noted.id && known.applied;
        });
        if (!applied) erase(noted.id);
    }
}

void AppliedIds::follow(const Range& range, const IdList& there, bool done) {
    struct Known {
        RequestId id{};
        Range change{};
        std::vector<Range> pieces{};
    };
    std::vector<Known> known;
    const auto knows = [&](const RequestId& id) {
        return std::any_of(known.begin(), known.end(),
                           [&](const Known& one) { return one.id == id; });
    };
    for (const NotedId& noted : there) {
        if (known.empty() || known.back().id != noted.id)
            known.push_back({.id = noted.id, .change = noted.change});
        if (!noted.applied) known.back().pieces.push_back(noted.piece);
    }
    // What the source does not know it has nothing of.
    for (const NotedId& noted : about(range)) {
        if (!knows(noted.id))
            known.push_back({.id = noted.id, .change = noted.change, .pieces = {noted.change}});
    }
    bool any = false;
    for (const Known& one : known) {
        std::vector<Range> own{one.change};
        if (const Entry* const entry = find(one.id); entry != nullptr)
            own = entry->applied ? std::vector<Range>{} : *pieces(one.id);
        if (done) own = without(own, range);
        any = set_pieces(one.id, one.change, united(own, within(one.pieces, range))) || any;
    }
    if (any) take_stock();
}

void AppliedIds::join(const IdList& list) {
    const IdList here = this->list();
    const std::uint64_t before = orders_;
    for (std::size_t i = 0; i < list.size();) {
        const RequestId id = list[i].id;
        const Range change = list[i].change;
        std::vector<Range> pieces;
        for (; i < list.size() && list[i].id == id; ++i) {
            if (!list[i].applied) pieces.push_back(list[i].piece);
        }
        if (Entry* const known = find(id); known != nullptr) {
            known->order = ++orders_;
        } else {
            set_pieces(id, change, pieces);
        }
    }
    // What came after the list was made comes after all of it.
    for (const NotedId& noted : here) {
        if (Entry* const known = find(noted.id); known != nullptr && known->order <= before)
            known->order = ++orders_;
    }
    take_stock();
    // It may have been written here before this said what is under it.
    for (const NotedId& noted : here) {
        if (noted.applied) overwritten(noted.change, noted.id);
    }
}

void AppliedIds::take_stock() {
    doubts_.clear();
    longest_doubt_bytes_ = 0;
    for (const NotedId& noted : list()) {
        if (noted.applied) continue;
        doubts_.emplace(noted.piece.offset_bytes, Doubt{noted.piece.end_bytes(), noted.id});
        longest_doubt_bytes_ = std::max(longest_doubt_bytes_, noted.piece.length_bytes);
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
