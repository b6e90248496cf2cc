// R8: which changes a member has applied, so that a retry does what is left of it and nothing
// twice. For each of up to 16 clients the last kWindow sequences are kept; the open requests of a
// client are never kWindow or more apart (open_sequences.h), so what is forgotten was answered.
//
// An id is unknown; or perhaps applied: noted before its change goes to the disk; or applied: noted
// before it is acknowledged. With an id that is perhaps applied stand the pieces of its range that
// its retry still has to write. A process that dies leaves what it had under way so. What is
// written over such a piece meanwhile is taken from it (overwritten()): a retry, however late,
// never overwrites what was answered after the change that it repeats was interrupted. Of two that
// overlap and are both perhaps applied the one noted later is the later one, whichever comes again
// first.
//
// A table says what one disk holds. So where content is copied from one member to another, what the
// source's table says of the range goes with it (about(), may_be_copied(), copied()).
//
// The table lies in memory that the owner gives: in the daemon a mapped file under /run, which
// outlives the process but not the boot.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "ublkd/base/units.h"
#include "ublkd/block/block_device.h"

namespace ublkd::replication {

using block::RequestId;

/// What a table says of an id. Not applied: one piece of it that its retry has to write.
struct NotedId {
    RequestId id{};
    bool applied = false;
    Range change{};
    Range piece{};
};
using IdList = std::vector<NotedId>;

class AppliedIds {
  public:
    static constexpr std::size_t kClients = 16;
    static constexpr std::size_t kWindow = 1024;
    /// Room for second and further pieces. Where there is none, a piece is given up.
    static constexpr std::size_t kMorePieces = 64;

    struct Entry {
        std::uint64_t sequence;  // 0: none. Written last
        Range change;
        Range piece;          // the first one, where it is not applied
        std::uint64_t order;  // greater: noted later. In this table alone
        bool applied;
    };
    struct ClientTable {
        std::uint64_t client_start;
        std::uint64_t last_use;  // greater: used later
        std::array<Entry, kWindow> entries;
    };
    struct Table {
        std::array<ClientTable, kClients> clients;
        std::array<NotedId, kMorePieces> more;
    };

    /// `table`: zeroed, or what an earlier process of this boot left.
    explicit AppliedIds(Table* table);

    bool applied(const RequestId& id) const;
    /// The pieces of an id that is perhaps applied; nullopt: it is unknown, or applied.
    std::optional<std::vector<Range>> pieces(const RequestId& id) const;
    void note_applied(const RequestId& id, const Range& change);
    /// Perhaps applied; the pieces are what its retry has to write.
    void note_perhaps(const RequestId& id, const Range& change, const Range& piece,
                      std::span<const Range> more = {});
    void erase(const RequestId& id);
    /// The change `id` wrote `range`: that is no piece of an earlier one any more.
    void overwritten(const Range& range, const RequestId& id);

    /// In the order in which they were noted.
    IdList list() const;
    /// A take-over by a member with this list. Its order counts, and what it does not know is
    /// later. What is unknown here is to be written whole. From now on overwritten() counts, as
    /// after take_stock().
    void agree(const IdList& list);
    /// Those of list() whose changes overlap `range`.
    IdList about(const Range& range) const;
    /// Content of `range` is being written here; its source says `there` about it. Until copied()
    /// either may be here, and a retry writes what any of the two would have to write; from then on
    /// what the source's would.
    void may_be_copied(const Range& range, const IdList& there);
    void copied(const Range& range, const IdList& there);
    /// The same at a replica that joins, whose list comes at the end: what the source has not
    /// applied is not here any more either.
    void copied_while_joining(const Range& range, const IdList& there);
    /// All of that member's content was copied to this one, which joins: what is unknown here is as
    /// it was there when the list was made, but for what was written here over it. What is known
    /// here came from it since the copies began.
    void join(const IdList& list);
    /// From now on overwritten() counts for all that is perhaps applied at this moment: no change
    /// of before is under way any more.
    void take_stock();
    void clear();

  private:
    struct Doubt {
        std::uint64_t end_bytes = 0;
        RequestId id{};
    };
    ClientTable* find(std::uint64_t client_start) const;
    Entry* find(const RequestId& id) const;
    /// The entry for `id`; nullptr where a newer sequence is in its place.
    Entry* place(const RequestId& id);
    void forget_more(const RequestId& id);
    void follow(const Range& range, const IdList& there, bool done);
    bool set_pieces(const RequestId& id, const Range& change, const std::vector<Range>& pieces);

    Table* table_;
    std::uint64_t uses_ = 0;
    std::uint64_t orders_ = 0;
    std::size_t more_used_ = 0;
    mutable ClientTable* newest_ = nullptr;       // where the last look-up ended
    std::multimap<std::uint64_t, Doubt> doubts_;  // by the piece's first byte
    std::uint64_t longest_doubt_bytes_ = 0;
};

}  // namespace ublkd::replication
