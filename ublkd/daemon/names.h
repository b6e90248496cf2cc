// From what a user wrote to the resource meant: an id, a unique prefix of one, or a Name tag. Not
// found, malformed and ambiguous are told apart, each with what to do. Reads the metadata;
// blocking; no state.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "metadata/store.h"
#include "ublkd/api/errors.h"
#include "ublkd/api/views.h"

namespace ublkd::daemon {

api::ApiResult<metadata::VolumeRecord> find_volume(metadata::MetadataStore* store,
                                                   const std::string& text);
/// "" is the instance that `own` itself is.
api::ApiResult<metadata::InstanceRecord> find_instance(metadata::MetadataStore* store,
                                                       const std::string& text, HostId own);
/// An id, a prefix, or the pool's path.
api::ApiResult<metadata::PoolRecord> find_pool(metadata::MetadataStore* store,
                                               const std::string& text);
api::ApiResult<metadata::HostRecord> find_host(metadata::MetadataStore* store,
                                               const std::string& text);
/// The id of a volume or an instance, whichever `text` names.
api::ApiResult<std::string> find_taggable(metadata::MetadataStore* store, const std::string& text);

Result<api::Tags> tags_of(metadata::Transaction& tx, const std::string& resource);
/// The tag "Name"; "" where there is none.
Result<std::string> name_of_resource(metadata::Transaction& tx, const std::string& resource);
Result<void> put_tag(metadata::Transaction& tx, const std::string& resource, const std::string& key,
                     const std::string& value);
Result<void> erase_tags(metadata::Transaction& tx, const std::string& resource);
/// kExists where another resource of the same kind (id prefix) has the name.
Result<void> check_name_free(metadata::Transaction& tx, const std::string& resource,
                             const std::string& name);

/// No control characters.
bool is_printable(std::string_view text);
/// 1 to 255 printable characters that do not look like an id.
api::ApiResult<void> check_name(const std::string& name);
api::ApiResult<void> check_tags(const api::Tags& tags);

}  // namespace ublkd::daemon
