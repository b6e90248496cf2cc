// The calls of metadata::RowService as JSON, for both ends (routes_rows.cc serves, remote_rows.cc
// asks). Reading is strict: what is not known, not of its type or too much is refused with a
// message, whoever sent it. Both ends have to know the same tables: each request says which its
// sender knows. No state; any thread. docs/metadata.md, "A store on another host", has the forms.
#pragma once

#include <cstddef>

#include "metadata/row_service.h"
#include "ublkd/api/errors.h"
#include "ublkd/api/json.h"

namespace ublkd::api {

inline constexpr std::size_t kRowsBodyMax = std::size_t{8} * 1024 * 1024;  // of a request

struct ListRequest {
    const metadata::Table* table = nullptr;
    metadata::Query query;
};

// What has no form (a table or a column that no record has) is a bug of the sender: CHECKed.
Json list_request_json(const metadata::Table& table, const metadata::Query& query);
Json changes_json(const std::vector<metadata::Change>& changes);
Json observed_json(const metadata::Observed& observed);
ApiResult<ListRequest> read_list_request(const Json& body);
ApiResult<std::vector<metadata::Change>> read_changes(const Json& body);  // one or more
ApiResult<metadata::Observed> read_observed(const Json& body);

// An error of the store is an answer like others.
Json rows_json(const metadata::Table& table, const Result<metadata::Rows>& rows);
Json trial_json(const Result<metadata::Trial>& trial);
Json checked_json(const Result<metadata::Checked>& checked);
ApiResult<Result<metadata::Rows>> read_rows(const metadata::Table& table, const Json& body);
ApiResult<Result<metadata::Trial>> read_trial(const Json& body);
ApiResult<Result<metadata::Checked>> read_checked(const Json& body);

}  // namespace ublkd::api
