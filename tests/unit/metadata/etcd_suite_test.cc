// The conformance suite on a real etcd.
#include "tests/unit/metadata/etcd_fixture.h"

namespace ublkd::metadata::test {

INSTANTIATE_TEST_SUITE_P(Etcd, MetadataSuite, ::testing::Values(&make_etcd_place));

}  // namespace ublkd::metadata::test
