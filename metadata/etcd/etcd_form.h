// The form of the metadata in etcd: keys, and the JSON of their values. Reading is strict. No
// state; any thread. docs/metadata.md, "Keys", has it byte by byte.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "metadata/value.h"
#include "ublkd/api/json.h"
#include "ublkd/base/result.h"

namespace ublkd::metadata {

inline constexpr std::uint64_t kEtcdFormat = 1;
inline constexpr std::size_t kErasedKept = 32;

class EtcdKeys {
  public:
    /// `prefix`: before all keys, "ublkd".
    explicit EtcdKeys(std::string prefix) : prefix_(std::move(prefix)) {}

    std::string state() const { return prefix_ + "/state"; }
    std::string client(std::uint64_t id) const;
    std::string row(const Table& table, std::span<const Value> key) const;
    std::string rows_begin() const { return prefix_ + "/rows/"; }
    std::string rows_end() const { return prefix_ + "/rows0"; }  // '0' comes after '/'
    /// The table of a row's key; nullptr: no row that is known here.
    const Table* table_of_key(std::string_view key) const;

  private:
    std::string prefix_;
};

std::string row_text(const Table& table, const Row& row);
/// kCorrupt: no row of this table, of this version.
Result<Row> read_row(const Table& table, std::string_view text, std::uint64_t revision);

/// The value of the key `state`, which each commit puts anew.
struct EtcdState {
    struct Erased {
        std::uint64_t commit = 0;
        const Table* table = nullptr;
        std::vector<Value> key;
    };
    std::uint64_t commits = 0;  // since the first one
    std::uint64_t since = 0;    // what later commits erased is in `erased`
    std::deque<Erased> erased;  // the last ones
    std::string by;             // the commit that put it
};

std::string state_text(const EtcdState& state);
/// kUnsupported: of another format or schema. kCorrupt: none.
Result<EtcdState> read_state(std::string_view text);

/// The same key while a whole store is being put there (etcd_filler.h), as anybody may find it.
struct EtcdThere {
    bool is_store = false;
    std::string by = {};         // who fills it in
    std::uint64_t attempt = 0;   // of that
    bool whole = false;          // all rows are there
    std::uint64_t commits = 0;   // EtcdState::commits, and on from it
    std::uint64_t revision = 0;  // 0: nothing is there
};

std::string filling_text(const EtcdThere& filling);
Result<EtcdThere> read_there(std::string_view text);

}  // namespace ublkd::metadata
