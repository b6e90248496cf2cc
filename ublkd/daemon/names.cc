#include "ublkd/daemon/names.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace ublkd::daemon {
namespace {

using api::ApiResult;
using api::refuse;
using api::shown;

constexpr std::array<std::string_view, 7> kPrefixes{"vol-", "i-",   "pool-", "host-",
                                                    "rep-", "att-", "snap-"};

bool looks_like_id(std::string_view text, std::string_view prefix) {
    if (!text.starts_with(prefix)) return false;
    const auto rest = text.substr(prefix.size());
    return rest.starts_with('0') && rest.size() <= 17 && std::ranges::all_of(rest, [](char c) {
               return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
           });
}

/// What the kinds of resources differ in.
struct Kind {
    const char* noun;
    const char* not_found;
};

template <class Record>
ApiResult<Record> one_of(const Kind& kind, const std::string& text, std::vector<Record> found) {
    if (found.empty())
        return refuse(kind.not_found, fmt::format("no {} '{}'", kind.noun, shown(text)));
    if (found.size() > 1) {
        std::vector<std::string> ids;
        for (const auto& record : found) ids.push_back(record.id.to_string());
        std::ranges::sort(ids);
        if (ids.size() > 5) ids.resize(5);
        return refuse("InvalidParameterValue",
                      fmt::format("'{}' fits {} {}s ({}...): give more of the id", text,
                                  found.size(), kind.noun, fmt::join(ids, ", ")));
    }
    return std::move(found[0]);
}

/// By id, by a prefix of one, else by `by_name`.
template <class Record, class ByName>
ApiResult<Record> find(metadata::MetadataStore* store, const Kind& kind, const std::string& text,
                       ByName by_name) {
    using IdType = decltype(Record::id);
    if (text.empty())
        return refuse(
            "MissingParameter",
            fmt::format("a {} is needed: its id, a prefix of it, or its name", kind.noun));
    const auto result = store->read_for<std::vector<Record>>(
        [&](metadata::Transaction& tx) -> Result<std::vector<Record>> {
            std::vector<Record> found;
            if (const auto id = IdType::parse(text)) {
                TRY_ASSIGN(auto record, tx.get<Record>(*id));
                if (record) found.push_back(std::move(*record));
                return found;
            }
            TRY_ASSIGN(const auto all, tx.list<Record>());
            const std::string prefix =
                IdType(1).to_string().substr(0, IdType(1).to_string().find('-') + 1);
            const bool by_prefix = looks_like_id(text, prefix);
            for (const auto& record : all) {
                if (by_prefix && record.id.to_string().starts_with(text)) {
                    found.push_back(record);
                    continue;
                }
                TRY_ASSIGN(const bool named, by_name(tx, record));
                if (named) found.push_back(record);
            }
            return found;
        });
    if (!result)
        return refuse(result.error(),
                      fmt::format("cannot look up the {} '{}'", kind.noun, shown(text)));
    return one_of(kind, text, *result);
}

}  // namespace

ApiResult<metadata::VolumeRecord> find_volume(metadata::MetadataStore* store,
                                              const std::string& text) {
    return find<metadata::VolumeRecord>(
        store, {"volume", "InvalidVolume.NotFound"}, text,
        [&](metadata::Transaction& tx, const auto& record) -> Result<bool> {
            TRY_ASSIGN(const auto name, name_of_resource(tx, record.id.to_string()));
            return name == text;
        });
}

ApiResult<metadata::InstanceRecord> find_instance(metadata::MetadataStore* store,
                                                  const std::string& text, HostId own) {
    if (text.empty()) {
        const auto of_host = store->list<metadata::InstanceRecord>(metadata::where("host", own));
        if (!of_host) return refuse(of_host.error(), "cannot look up the host's instance");
        const auto itself = std::ranges::find(*of_host, true, &metadata::InstanceRecord::is_host);
        if (itself == of_host->end())
            return refuse("InvalidInstanceID.NotFound",
                          "the host has no instance: was it initialized?");
        return *itself;
    }
    return find<metadata::InstanceRecord>(
        store, {"instance", "InvalidInstanceID.NotFound"}, text,
        [&](metadata::Transaction& tx, const auto& record) -> Result<bool> {
            TRY_ASSIGN(const auto name, name_of_resource(tx, record.id.to_string()));
            return name == text;
        });
}

ApiResult<metadata::PoolRecord> find_pool(metadata::MetadataStore* store, const std::string& text) {
    return find<metadata::PoolRecord>(
        store, {"pool", "InvalidPool.NotFound"}, text,
        [&](metadata::Transaction&, const auto& record) -> Result<bool> {
            return record.path == text;
        });
}

ApiResult<metadata::HostRecord> find_host(metadata::MetadataStore* store, const std::string& text) {
    return find<metadata::HostRecord>(
        store, {"host", "InvalidHost.NotFound"}, text,
        [&](metadata::Transaction&, const auto& record) -> Result<bool> {
            return record.name == text;
        });
}

ApiResult<std::string> find_taggable(metadata::MetadataStore* store, const std::string& text) {
    const auto volume = find_volume(store, text);
    if (!volume && volume.error().code != "InvalidVolume.NotFound") return refuse(volume.error());
    const auto instance = find_instance(store, text, HostId());
    if (!instance && instance.error().code != "InvalidInstanceID.NotFound")
        return refuse(instance.error());
    if (volume && instance) {
        return refuse("InvalidParameterValue",
                      fmt::format("'{}' names the volume {} and the instance {}: give the id",
                                  shown(text), volume->id.to_string(), instance->id.to_string()));
    }
    if (volume) return volume->id.to_string();
    if (instance) return instance->id.to_string();
    return refuse("InvalidResource.NotFound",
                  fmt::format("no volume or instance '{}'", shown(text)));
}

Result<api::Tags> tags_of(metadata::Transaction& tx, const std::string& resource) {
    TRY_ASSIGN(const auto records,
               tx.list<metadata::TagRecord>(metadata::where("resource", resource)));
    api::Tags tags;
    for (const auto& record : records) tags[record.key] = record.value;
    return tags;
}

Result<std::string> name_of_resource(metadata::Transaction& tx, const std::string& resource) {
    TRY_ASSIGN(const auto record, tx.get<metadata::TagRecord>(resource, "Name"));
    return record ? record->value : std::string();
}

Result<void> put_tag(metadata::Transaction& tx, const std::string& resource, const std::string& key,
                     const std::string& value) {
    TRY_ASSIGN(auto old, tx.get<metadata::TagRecord>(resource, key));
    metadata::TagRecord record = old ? *old : metadata::TagRecord{resource, key, "", 0};
    record.value = value;
    return tx.put(record);
}

Result<void> erase_tags(metadata::Transaction& tx, const std::string& resource) {
    TRY_ASSIGN(const auto records,
               tx.list<metadata::TagRecord>(metadata::where("resource", resource)));
    for (const auto& record : records) {
        TRY(tx.erase(record));
    }
    return {};
}

Result<void> check_name_free(metadata::Transaction& tx, const std::string& resource,
                             const std::string& name) {
    if (name.empty()) return {};
    TRY_ASSIGN(const auto records,
               tx.list<metadata::TagRecord>(metadata::Query{
                   {{"key", metadata::to_value("Name")}, {"value", metadata::to_value(name)}},
                   {},
                   SIZE_MAX}));
    const auto kind = resource.substr(0, resource.find('-'));
    for (const auto& record : records) {
        if (record.resource != resource && record.resource.starts_with(kind + "-"))
            return fail(Errc::kExists, "the name is used by another one");
    }
    return {};
}

ApiResult<void> check_name(const std::string& name) {
    if (name.empty() || name.size() > 255 || !is_printable(name)) {
        return refuse(
            "InvalidParameterValue",
            fmt::format("a name has 1 to 255 printable characters; '{}' was given", shown(name)));
    }
    for (const auto prefix : kPrefixes) {
        if (looks_like_id(name, prefix)) {
            return refuse("InvalidParameterValue",
                          fmt::format("a name must not look like an id; '{}' was given", name));
        }
    }
    return {};
}

bool is_printable(std::string_view text) {
    return std::ranges::all_of(
        text, [](char c) { return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f; });
}

ApiResult<void> check_tags(const api::Tags& tags) {
    if (tags.size() > 50)
        return refuse("InvalidParameterValue",
                      fmt::format("a resource has at most 50 tags; {} were given", tags.size()));
    for (const auto& [key, value] : tags) {
        if (key.empty() || key.size() > 127 || value.size() > 255 || !is_printable(key) ||
            !is_printable(value)) {
            return refuse("InvalidParameterValue",
                          fmt::format("a tag has a key of 1 to 127 and a value of 0 to 255 "
                                      "printable bytes; '{}={}' was given",
                                      shown(key), shown(value)));
        }
        if (key == "Name" && !value.empty()) {
            API_TRY(check_name(value));
        }
    }
    return {};
}

}  // namespace ublkd::daemon
