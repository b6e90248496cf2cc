// The JSON of etcd's gateway: what a call asks, and what it is answered. No state; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "metadata/etcd/etcd_client.h"
#include "ublkd/api/json.h"

namespace ublkd::metadata {

inline constexpr const char* kRange = "/v3/kv/range";
inline constexpr const char* kTxn = "/v3/kv/txn";
inline constexpr std::uint64_t kPage = 500;  // rows of one answer

/// The gateway writes 64-bit numbers as text, and leaves out those that are 0.
std::uint64_t number_of(const api::Json& json);
inline std::string text_of(std::uint64_t value) { return std::to_string(value); }

/// One key.
api::Json range_of(const std::string& key);
// Steps of a Txn.
api::Json put_key(const std::string& key, const std::string& value);
api::Json erase_key(const std::string& key);
/// The comparison of a Txn: the key still has this mod_revision (0: it is not there).
api::Json if_unchanged(const std::string& key, std::uint64_t revision);

struct FoundKey {
    std::string key, value;
    std::uint64_t revision = 0;  // mod_revision
};
Result<std::vector<FoundKey>> found_in(const api::Json& range_answer);
std::unexpected<Error> no_etcd();

}  // namespace ublkd::metadata
