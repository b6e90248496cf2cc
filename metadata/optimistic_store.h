// MetadataStore over a RowService. A transaction holds nothing at the far side: it notes what its
// reads gave and what came of its changes, which the far side tries and undoes, and at its end has
// all of it observed again and the changes made in one step. Where another one came first, `work`
// is run again, in vain at most for OptimisticOptions::repeat_for. What `work` sees, and so what it
// returns, is of one committed state at any moment: an answer of a newer state counts once all that
// was observed before is seen to be the same there. A revision that put() gives is good in its
// transaction alone, and says what it was before, so that a record that was put in vain can be put
// again. Blocking; thread-safe, as its RowService is. Rules: rule.reads_of_one_state,
// rule.reads_validated (local_rows.cc). docs/metadata.md, "A store on another host".
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "metadata/row_service.h"
#include "metadata/store.h"

namespace ublkd::metadata {

struct OptimisticOptions {
    std::chrono::milliseconds repeat_for{10'000};
};

class OptimisticStore : public MetadataStore {
  public:
    /// `rows` outlives this.
    explicit OptimisticStore(RowService* rows, OptimisticOptions options = {})
        : rows_(rows), options_(options) {}

    /// Also kStale: the far store shows an older state than it did, as one that was restored does.
    Result<void> write(const Work& work) override { return run(work, true); }
    Result<void> read(const Work& work) override { return run(work, false); }

  private:
    Result<void> run(const Work& work, bool writing);

    RowService* rows_;
    OptimisticOptions options_;
    std::atomic<std::uint64_t> newest_ = 0;  // state that was seen
};

}  // namespace ublkd::metadata
