#include "cli/output.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "cli/values.h"

namespace ublkd::cli {
namespace {

using api::Json;

constexpr std::array<std::pair<std::string_view, Format>, 7> kFormats{
    {{"table", Format::kTable},
     {"wide", Format::kWide},
     {"json", Format::kJson},
     {"jsonl", Format::kJsonLines},
     {"yaml", Format::kYaml},
     {"tsv", Format::kTsv},
     {"id", Format::kId}}};

const Column* find_column(const View& view, const std::string& name) {
    for (const Column& column : view.columns) {
        if (lower(column.header) == lower(name)) return &column;
    }
    return nullptr;
}

/// What an item has under a name: several values where an array lies on the way.
struct Found {
    std::vector<Json> values{};
    bool known = false;
};

/// What the dotted `key` names, in any case.
void find_key(const Json& at, std::string_view key, Found& found) {
    if (at.is_array()) {
        found.known |= at.items().empty();  // its items could have it
        for (const Json& item : at.items()) find_key(item, key, found);
        return;
    }
    const auto dot = key.find('.');
    for (const auto& [name, value] : at.members()) {
        if (lower(name) != lower(key.substr(0, dot))) continue;
        if (dot != std::string_view::npos) {
            find_key(value, key.substr(dot + 1), found);
            continue;
        }
        found.known = true;
        found.values.push_back(value);
    }
}

std::string text_of(const Json& value) {
    return value.is_string() ? value.as_string() : value.dump();
}

std::string column_names(const View& view) {
    std::vector<std::string> names;
    for (const Column& column : view.columns) names.push_back(column.header);
    return fmt::format("{}", fmt::join(names, ", "));
}

/// Keys' values, a column's cell or, for tag:KEY, a tag's value.
Found values_of(const View& view, const Json& item, const std::string& name) {
    Found found;
    if (name.starts_with("tag:")) {
        found.known = true;
        for (const Json& tag : item["Tags"].items()) {
            if (tag["Key"].as_string() == name.substr(4)) found.values.push_back(tag["Value"]);
        }
        return found;
    }
    find_key(item, name, found);
    if (found.known) return found;
    if (const Column* column = find_column(view, name)) return {{Json(column->cell(item))}, true};
    return found;
}

/// KEY=PATTERN of --filter: the patterns of each key.
std::expected<std::map<std::string, std::vector<std::string>>, std::string> patterns_of(
    const std::vector<std::string>& filters) {
    std::map<std::string, std::vector<std::string>> patterns;
    for (const std::string& filter : filters) {
        const auto equals = filter.find('=');
        if (equals == std::string::npos || equals == 0)
            return std::unexpected(fmt::format(
                "a filter is KEY=VALUE (* stands for anything); '{}' was given", filter));
        patterns[filter.substr(0, equals)].push_back(filter.substr(equals + 1));
    }
    return patterns;
}

std::expected<std::vector<Json>, std::string> chosen(const View& view, std::vector<Json> items,
                                                     const OutputOptions& options) {
    const auto unknown = [&](const std::string& name) {
        return std::unexpected(fmt::format(
            "there is no '{}' here; columns are {}, keys are those of -o json, tags are tag:KEY",
            name, column_names(view)));
    };
    const auto filters = patterns_of(options.filters);
    if (!filters) return std::unexpected(filters.error());
    for (const auto& [key, patterns] : *filters) {
        std::vector<Json> kept;
        bool known = items.empty() || find_column(view, key) != nullptr;
        for (Json& item : items) {
            const Found found = values_of(view, item, key);
            known = known || found.known;
            const bool fits = std::ranges::any_of(found.values, [&](const Json& value) {
                return std::ranges::any_of(patterns, [&](const std::string& pattern) {
                    return glob_fits(pattern, text_of(value));
                });
            });
            if (fits) kept.push_back(std::move(item));
        }
        if (!known) return unknown(key);
        items = std::move(kept);
    }
    if (options.sort.empty()) return items;
    const bool down = options.sort.starts_with('-');
    const std::string key = options.sort.substr(down ? 1 : 0);
    bool known = items.empty();
    std::vector<std::pair<std::string, Json>> keyed;
    for (Json& item : items) {
        const Found found = values_of(view, item, key);
        known = known || found.known;
        const Json value = found.values.empty() ? Json("") : found.values.front();
        std::string sort_by =
            value.as_u64() ? fmt::format("{:020}", *value.as_u64()) : text_of(value);
        keyed.emplace_back(std::move(sort_by), std::move(item));
    }
    if (!known && find_column(view, key) == nullptr) return unknown(key);
    std::vector<std::size_t> order(keyed.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::ranges::sort(order, [&](std::size_t a, std::size_t b) {  // equal ones keep their order
        const int compared = keyed[a].first.compare(keyed[b].first);
        if (compared == 0) return a < b;
        return down ? compared > 0 : compared < 0;
    });
    items.clear();
    for (const std::size_t at : order) items.push_back(std::move(keyed[at].second));
    return items;
}

std::expected<std::vector<const Column*>, std::string> wanted_columns(
    const View& view, const OutputOptions& options) {
    std::vector<const Column*> columns;
    for (const std::string& name : options.columns) {
        const Column* column = find_column(view, name);
        if (column == nullptr)
            return std::unexpected(
                fmt::format("there is no column '{}'; there are {}", name, column_names(view)));
        columns.push_back(column);
    }
    if (!columns.empty()) return columns;
    for (const Column& column : view.columns) {
        if (!column.wide || options.format == Format::kWide) columns.push_back(&column);
    }
    return columns;
}

std::string tsv_cell(std::string text) {
    for (char& c : text) {
        if (c == '\t' || c == '\n') c = ' ';
    }
    return text;
}

/// Every format but json and yaml, whose whole differs between a list and an item.
std::string lines_text(const View& view, const std::vector<Json>& items,
                       const std::vector<const Column*>& columns, Format format) {
    std::string text;
    if (format == Format::kId) {
        for (const Json& item : items) text += item[view.id_key].as_string() + "\n";
        return text;
    }
    if (format == Format::kJsonLines) {
        for (const Json& item : items) text += item.dump() + "\n";
        return text;
    }
    std::vector<std::vector<std::string>> rows;
    if (format != Format::kTsv) {
        auto& header = rows.emplace_back();
        for (const Column* column : columns) header.push_back(column->header);
    }
    for (const Json& item : items) {
        auto& row = rows.emplace_back();
        for (const Column* column : columns) row.push_back(tsv_cell(column->cell(item)));
    }
    if (format != Format::kTsv) return items.empty() ? "" : aligned(rows);
    for (const auto& row : rows) text += fmt::format("{}\n", fmt::join(row, "\t"));
    return text;
}

bool plain_yaml(const std::string& text) {
    if (text.empty() || text != std::string(text.c_str())) return false;
    const std::string small = lower(text);
    for (const std::string_view word : {"true", "false", "null", "yes", "no", "on", "off", "~"}) {
        if (small == word) return false;
    }
    const bool first_ok = std::isalpha(static_cast<unsigned char>(text[0])) != 0 || text[0] == '/';
    return first_ok && std::ranges::all_of(text, [](char c) {
               return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' ||
                      c == '.' || c == '/';
           });
}

}  // namespace

std::expected<Format, std::string> parse_format(const std::string& name) {
    for (const auto& [known, format] : kFormats) {
        if (known == name) return format;
    }
    return std::unexpected(fmt::format(
        "'{}' is not a format; there are table, wide, json, jsonl, yaml, tsv and id", name));
}

std::expected<void, std::string> check_columns(const View& view, const OutputOptions& options) {
    const auto columns = wanted_columns(view, options);
    if (!columns) return std::unexpected(columns.error());
    return {};
}

std::string aligned(const std::vector<std::vector<std::string>>& rows) {
    std::vector<std::size_t> widths;
    const auto width_of = [](const std::string& text) {  // characters, not bytes
        return static_cast<std::size_t>(std::ranges::count_if(
            text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
    };
    for (const auto& row : rows) {
        widths.resize(std::max(widths.size(), row.size()));
        for (std::size_t i = 0; i < row.size(); ++i)
            widths[i] = std::max(widths[i], width_of(row[i]));
    }
    std::string text;
    for (const auto& row : rows) {
        std::string line;
        for (std::size_t i = 0; i < row.size(); ++i) {
            line += row[i];
            line += std::string(widths[i] - width_of(row[i]) + 2, ' ');
        }
        line.erase(line.find_last_not_of(' ') + 1);
        text += line + "\n";
    }
    return text;
}

std::string yaml_text(const Json& value, unsigned level) {
    const std::string indent(std::size_t{2} * level, ' ');
    const auto inline_value = [](const Json& item) {
        if (item.is_string()) return plain_yaml(item.as_string()) ? item.as_string() : item.dump();
        if (item.is_array() && item.items().empty()) return std::string("[]");
        if (item.is_object() && item.members().empty()) return std::string("{}");
        return item.dump();
    };
    const auto is_block = [](const Json& item) {
        return !item.items().empty() || !item.members().empty();
    };
    std::string text;
    for (const auto& [key, member] : value.members()) {
        if (is_block(member))
            text += fmt::format("{}{}:\n{}", indent, key,
                                yaml_text(member, level + (member.is_object() ? 1 : 0)));
        else
            text += fmt::format("{}{}: {}\n", indent, key, inline_value(member));
    }
    for (const Json& item : value.items()) {
        if (!is_block(item)) {
            text += fmt::format("{}- {}\n", indent, inline_value(item));
            continue;
        }
        std::string inner = yaml_text(item, level + 1);
        inner.replace(std::size_t{2} * level, 2, "- ");
        text += inner;
    }
    return text;
}

std::expected<std::string, std::string> list_text(const View& view, const Json& answer,
                                                  const OutputOptions& options) {
    auto items = chosen(view, answer[view.list_key].items(), options);
    if (!items) return std::unexpected(items.error());
    const auto columns = wanted_columns(view, options);
    if (!columns) return std::unexpected(columns.error());
    if (options.format != Format::kJson && options.format != Format::kYaml)
        return lines_text(view, *items, *columns, options.format);
    Json list = Json::array();
    for (Json& item : *items) list.push(std::move(item));
    Json whole = Json::object().set(view.list_key, std::move(list));
    if (options.envelope != nullptr) whole = options.envelope(std::move(whole));
    return options.format == Format::kJson ? whole.dump(true) + "\n" : yaml_text(whole);
}

std::expected<std::string, std::string> item_text(const View& view, const Json& item,
                                                  const OutputOptions& options) {
    const auto columns = wanted_columns(view, options);
    if (!columns) return std::unexpected(columns.error());
    switch (options.format) {
        case Format::kJson:
            return item.dump(true) + "\n";
        case Format::kYaml:
            return yaml_text(item);
        case Format::kTable:
        case Format::kWide:
            break;
        default:
            return lines_text(view, {item}, *columns, options.format);
    }
    std::vector<std::vector<std::string>> rows;
    for (const Column* column : *columns) rows.push_back({column->header, column->cell(item)});
    return aligned(rows);
}

}  // namespace ublkd::cli
