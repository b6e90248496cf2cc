// What every backend of MetadataStore must do (metadata/store.h, docs/metadata.md). A backend's
// test instantiates it:
//     INSTANTIATE_TEST_SUITE_P(Sqlite, MetadataSuite, ::testing::Values(&make_sqlite_place));
// A MetadataPlace is where one store lives: it opens the store, and opens it again after it was
// closed.
#pragma once

#include <gtest/gtest.h>

#include <memory>

#include "metadata/store.h"

namespace ublkd::metadata::test {

class MetadataPlace {
  public:
    virtual ~MetadataPlace() = default;
    virtual Result<std::unique_ptr<MetadataStore>> open() = 0;
};

using MakeMetadataPlace = std::unique_ptr<MetadataPlace> (*)();

class MetadataSuite : public ::testing::TestWithParam<MakeMetadataPlace> {
  protected:
    void SetUp() override;
    void reopen();
    MetadataStore& store() { return *store_; }

    /// In a transaction of its own; the error of put().
    template <class Record>
    Result<void> put(Record record) {
        return store_->write([&](Transaction& tx) { return tx.put(record); });
    }

  private:
    std::unique_ptr<MetadataPlace> place_;
    std::unique_ptr<MetadataStore> store_;
};

}  // namespace ublkd::metadata::test
