// An OptimisticStore over the rows of a SqliteStore of this process, which it owns with it.
#pragma once

#include "metadata/local_rows.h"
#include "metadata/optimistic_store.h"
#include "tests/unit/metadata/sqlite_fixture.h"

namespace ublkd::metadata::test {

class LocalPlace : public MetadataPlace {
  public:
    Result<std::unique_ptr<MetadataStore>> open() override {
        auto opened = SqliteStore::open(folder_.file("metadata.db"));
        if (!opened) return fail(opened.error());
        return std::make_unique<Stack>(std::move(*opened));
    }

  private:
    struct Held {
        std::unique_ptr<SqliteStore> store;
        LocalRows rows{store.get()};
    };
    struct Stack : private Held, public OptimisticStore {
        explicit Stack(std::unique_ptr<SqliteStore> opened)
            : Held{std::move(opened)}, OptimisticStore(&this->rows) {}
    };
    TemporaryFolder folder_;
};

inline std::unique_ptr<MetadataPlace> make_local_place() { return std::make_unique<LocalPlace>(); }

}  // namespace ublkd::metadata::test
