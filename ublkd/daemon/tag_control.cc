#include "ublkd/daemon/tag_control.h"

#include <fmt/format.h>

#include <algorithm>

#include "ublkd/daemon/names.h"

namespace ublkd::daemon {

using api::ApiResult;
using api::refuse;
using metadata::Transaction;

ApiResult<std::vector<api::TagView>> TagControl::tags(const std::string& resource) {
    metadata::Query query;
    if (!resource.empty()) {
        API_TRY_ASSIGN(const auto id, find_taggable(core_.store, resource));
        query = metadata::where("resource", id);
    }
    const auto records = core_.store->list<metadata::TagRecord>(query);
    if (!records) return refuse(records.error(), "cannot list the tags");
    std::vector<api::TagView> views;
    for (const auto& record : *records)
        views.push_back({record.resource, record.key, record.value});
    return views;
}

ApiResult<void> TagControl::add_tags(const std::string& resource, const api::Tags& tags) {
    API_TRY_ASSIGN(const auto id, find_taggable(core_.store, resource));
    API_TRY(check_tags(tags));
    std::size_t count = 0;
    const auto stored = core_.store->write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(auto all, tags_of(tx, id));
        for (const auto& [key, value] : tags) {
            if (key == "Name") {
                TRY(check_name_free(tx, id, value));
            }
            TRY(put_tag(tx, id, key, value));
            all[key] = value;
        }
        count = all.size();
        if (count > 50) return fail(Errc::kExhausted, "tags");
        return {};
    });
    if (count > 50)
        return refuse("InvalidParameterValue",
                      fmt::format("a resource has at most 50 tags; this would make {}", count));
    if (!stored && stored.error().code == Errc::kExists)
        return refuse("AlreadyExists",
                      fmt::format("another resource has the name '{}'", tags.at("Name")));
    if (!stored) return refuse(stored.error(), "cannot store the tags");
    if (const auto name = tags.find("Name"); name != tags.end())
        core_.engine->rename_export(id, name->second);
    return {};
}

ApiResult<void> TagControl::remove_tags(const std::string& resource,
                                        const std::vector<std::string>& keys) {
    API_TRY_ASSIGN(const auto id, find_taggable(core_.store, resource));
    const auto erased = core_.store->write([&](Transaction& tx) -> Result<void> {
        for (const auto& key : keys) {
            TRY_ASSIGN(const auto record, tx.get<metadata::TagRecord>(id, key));
            if (record) {
                TRY(tx.erase(*record));
            }
        }
        return {};
    });
    if (!erased) return refuse(erased.error(), "cannot remove the tags");
    if (std::ranges::find(keys, "Name") != keys.end()) core_.engine->rename_export(id, "");
    return {};
}

}  // namespace ublkd::daemon
