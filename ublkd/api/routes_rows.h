// The routes by which another host uses this one's metadata: a RouteTable of their own, for a
// socket of their own, since who may use it may change everything. docs/metadata.md, "A store on
// another host".
#pragma once

#include "metadata/row_service.h"
#include "ublkd/api/route_table.h"

namespace ublkd::api {

/// `rows` must outlive the table. The table's server takes bodies of kRowsBodyMax (row_json.h).
/// Rule: rule.given_up_is_over.
void add_row_routes(RouteTable& table, metadata::RowService* rows);

}  // namespace ublkd::api
