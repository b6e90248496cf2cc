// An OptimisticStore over a real etcd: a client as a host is one, and the place of the suite, which
// is one more prefix in an etcd of the test program. And a counter, for tests that need a change.
#pragma once

#include <memory>
#include <string>

#include "metadata/etcd/etcd_rows.h"
#include "metadata/optimistic_store.h"
#include "tests/unit/metadata/etcd_process.h"
#include "ublkd/base/ids.h"

namespace ublkd::metadata::test {

class EtcdStore : private std::unique_ptr<EtcdRows>, public OptimisticStore {
  public:
    explicit EtcdStore(std::unique_ptr<EtcdRows> rows)
        : std::unique_ptr<EtcdRows>(std::move(rows)),
          OptimisticStore(this->std::unique_ptr<EtcdRows>::get()) {}
    explicit EtcdStore(const EtcdOptions& options) : EtcdStore(*EtcdRows::make(options)) {}
    using OptimisticStore::get;
};

class EtcdPlace : public MetadataPlace {
  public:
    Result<std::unique_ptr<MetadataStore>> open() override {
        // The suite's 10,000 events are one transaction.
        static EtcdProcess etcd({.flags = {"--max-txn-ops=20000", "--max-request-bytes=16777216"}});
        EtcdOptions options{.access = etcd.access(),
                            .prefix = prefix_,
                            .seen_file = folder_.file("etcd-seen"),
                            .deadline = std::chrono::milliseconds(60'000)};
        TRY_ASSIGN(auto rows, EtcdRows::make(options));
        return std::make_unique<EtcdStore>(std::move(rows));
    }

  private:
    TemporaryFolder folder_;
    const std::string prefix_ = format_id("test-", random_u64());
};

inline std::unique_ptr<MetadataPlace> make_etcd_place() { return std::make_unique<EtcdPlace>(); }

inline CounterRecord count_of(std::string name, std::uint64_t value) {
    return CounterRecord{.name = std::move(name), .value = value};
}

inline Result<void> add_one(MetadataStore& store, const std::string& name) {
    return store.write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(const auto found, tx.get<CounterRecord>(name));
        CounterRecord record = found.value_or(count_of(name, 0));
        ++record.value;
        return tx.put(record);
    });
}

}  // namespace ublkd::metadata::test
