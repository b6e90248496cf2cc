// The conformance suite on the SQLite backend.
#include "tests/unit/metadata/sqlite_fixture.h"

namespace ublkd::metadata::test {

INSTANTIATE_TEST_SUITE_P(Sqlite, MetadataSuite, ::testing::Values(&make_sqlite_place));

}  // namespace ublkd::metadata::test
