// A metadata::Value as JSON: null, a number, a text, {"Bytes": hex}, or {"Text": hex} where it is
// not ASCII; and what else reads such JSON strictly. No state; any thread. docs/metadata.md.
#pragma once

#include <initializer_list>
#include <optional>
#include <string_view>

#include "metadata/value.h"
#include "ublkd/api/errors.h"
#include "ublkd/api/json.h"

namespace ublkd::api {

Json value_json(const metadata::Value& value);
ApiResult<metadata::Value> read_value(const Json& json);

/// A row as an object: each column of its table by its name; and the way back, with revision 0.
/// nullopt: no row of this table, of this version.
Json row_object(const metadata::Table& table, const metadata::Row& row);
std::optional<metadata::Row> read_row_object(const metadata::Table& table, const Json& json);

/// A refusal that shows what was given.
std::unexpected<ApiError> malformed(std::string_view what, const Json& given);
/// An object without any other member.
ApiResult<void> only(const Json& json, std::string_view what,
                     std::initializer_list<std::string_view> names);

}  // namespace ublkd::api
