// RowService: what a store offers to another host, in untyped rows and without a transaction that
// stays open between two calls: who goes away in the middle holds up nobody. OptimisticStore makes
// a MetadataStore of it; LocalRows is one over a store of this process, api::RemoteRows one over
// HTTP. Each answer names the state of the store that it is of, by a number that grows with each
// commit, so that who asks twice knows whether both answers are of one state. Blocking; any thread
// may call. docs/metadata.md, "A store on another host".
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "metadata/store.h"
#include "metadata/value.h"
#include "ublkd/base/result.h"

namespace ublkd::metadata {

/// Row::revision in a Change: "as this transaction's own change left it".
inline constexpr std::uint64_t kOwnRevision = std::uint64_t{1} << 63;

struct Rows {
    std::vector<Row> rows;
    std::uint64_t state = 0;
};

/// What a list gave: it gives the same as long as these keys have these revisions, and no others
/// come.
struct Seen {
    struct Mark {
        std::vector<Value> key;
        std::uint64_t revision = 0;
        friend bool operator==(const Mark&, const Mark&) = default;
    };
    const Table* table = nullptr;
    Query query;
    std::vector<Mark> marks;
};

struct Change {
    enum class Kind { kPut, kErase };
    Kind kind = Kind::kPut;
    const Table* table = nullptr;
    Row row;                      // of an erase the key and the revision count
    std::optional<Errc> refused;  // the error that it came to; none: it was done
};

/// All that a transaction has observed: what its lists gave, and what came of its changes, in their
/// order.
struct Observed {
    std::vector<Seen> reads;
    std::vector<Change> changes;
};

struct Checked {
    /// Whether all of it was observed again. Where not, nothing was done.
    bool same = false;
    std::uint64_t state = 0;
};

struct Trial {
    Checked before;               // of the changes but the last
    std::optional<Errc> refused;  // what the last one comes to after them
};

/// Whether `code` is an answer of put() or erase() (store.h) and no trouble of the store.
constexpr bool is_refusal(Errc code) {
    return code == Errc::kExists || code == Errc::kConflict || code == Errc::kNotFound ||
           code == Errc::kBusy || code == Errc::kInvalidArgument;
}

class RowService {
  public:
    virtual ~RowService() = default;

    /// Rows of one committed state, never of an older one than a call that has ended before has
    /// seen. One row is a list by its whole key.
    virtual Result<Rows> list(const Table& table, const Query& query) = 0;
    /// What would come of the last of `changes` (at least one). Changes nothing.
    virtual Result<Trial> try_last(const std::vector<Change>& changes) = 0;
    /// Whether `observed` is what would be observed now. Changes nothing.
    virtual Result<Checked> check(const Observed& observed) = 0;
    /// check(), and if it is the same, makes those changes that were not refused, all in one step,
    /// on stable storage when it returns. Errors: kClosed (it cannot be reached, nothing was done),
    /// kNoSpace and kExhausted (too much for it; nothing was done), kIo and kTimedOut (whether it
    /// was done is unknown until it is read again).
    virtual Result<Checked> commit(const Observed& observed) = 0;
};

}  // namespace ublkd::metadata
