// How results are printed: one table of columns per kind of resource, and every format made of it
// and of the API's JSON. Data goes to stdout; everything else to stderr. No colour is needed to
// read anything. One thread.
#pragma once

#include <expected>
#include <string>
#include <vector>

#include "ublkd/api/json.h"

namespace ublkd::cli {

enum class Format { kTable, kWide, kJson, kJsonLines, kYaml, kTsv, kId };
/// "table", "wide", "json", "jsonl", "yaml", "tsv", "id".
std::expected<Format, std::string> parse_format(const std::string& name);

struct Column {
    std::string header;  // "SIZE"
    std::string (*cell)(const api::Json& item);
    bool wide = false;  // in -o wide and --columns only
};

/// A kind of resource as it is listed.
struct View {
    std::string list_key;  // "Volumes" in the API's answer
    std::string id_key;    // "VolumeId"
    std::vector<Column> columns;
};

struct OutputOptions {
    Format format = Format::kTable;
    std::vector<std::string> columns{};  // headers, in any case; empty: the view's own
    std::vector<std::string> filters{};  // KEY=PATTERN
    std::string sort{};                  // header or key; "-" before it: the other way round
    bool silent = false;                 // nothing on stdout
    api::Json (*envelope)(api::Json) = nullptr;  // what a list in json and yaml is wrapped in
};

/// Whether the columns are there, before anything is asked of the daemon.
std::expected<void, std::string> check_columns(const View& view, const OutputOptions& options);
/// The text for stdout. An error names the column, key or filter that is wrong and what there is.
std::expected<std::string, std::string> list_text(const View& view, const api::Json& answer,
                                                  const OutputOptions& options);
/// One resource: a line per column in table and wide, else as in a list of one.
std::expected<std::string, std::string> item_text(const View& view, const api::Json& item,
                                                  const OutputOptions& options);

/// Columns padded to their width, two blanks between, none at the end.
std::string aligned(const std::vector<std::vector<std::string>>& rows);
std::string yaml_text(const api::Json& value, unsigned level = 0);

}  // namespace ublkd::cli
