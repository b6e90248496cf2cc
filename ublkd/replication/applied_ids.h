// R8: the ids of changes that a member has applied, so that a retry is answered and not applied
// again. For each of up to 16 clients the last kWindow sequences are kept; the open requests of a
// client are never kWindow or more apart (open_sequences.h), so what is forgotten was answered.
//
// The table lies in memory that the owner gives: in the daemon a mapped file under /run, which
// outlives the process but not the boot. An entry is written after the data was applied and before
// it is acknowledged.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "ublkd/block/block_device.h"

namespace ublkd::replication {

using block::RequestId;

class AppliedIds {
  public:
    static constexpr std::size_t kClients = 16;
    static constexpr std::size_t kWindow = 1024;

    struct ClientTable {
        std::uint64_t client_start;
        std::uint64_t last_use;  // greater: used later
        std::array<std::uint64_t, kWindow> sequences;
    };
    struct Table {
        std::array<ClientTable, kClients> clients;
    };

    /// `table`: zeroed, or what an earlier process of this boot left.
    explicit AppliedIds(Table* table);

    bool knows(const RequestId& id) const;
    void insert(const RequestId& id);
    void erase(const RequestId& id);
    std::vector<RequestId> list() const;
    /// Forgets what `ids` does not hold: after a takeover only what both have applied counts.
    void keep_only(std::span<const RequestId> ids);
    void clear();

  private:
    ClientTable* find(std::uint64_t client_start) const;

    Table* table_;
    std::uint64_t uses_ = 0;
    mutable ClientTable* newest_ = nullptr;  // where the last look-up ended
};

}  // namespace ublkd::replication
