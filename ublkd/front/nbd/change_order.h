// Keeps a read-modify-write of part of a logical block from losing a write beside it. NBD clients
// that did not ask for block sizes may write single bytes; the front end then reads the block,
// changes the bytes and writes it back. While it does so no other change of that block may be under
// way, on any connection of the export.
//
// Every change (write, trim, write zeroes) is in the list from its start to its end, in order of
// arrival. A change waits for the earlier ones that overlap it where one of the two is a
// read-modify-write; so nobody waits in a ring. Whole-block changes never wait while there is no
// read-modify-write: the common path is two pointer writes. Owner: SharedExport, on the export's
// reactor.
#pragma once

#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/base/units.h"
#include "ublkd/io/sync.h"
#include "ublkd/io/task.h"

namespace ublkd::front::nbd {

class ChangeOrder {
  public:
    struct Change {
        Range range;            // whole logical blocks
        bool modifies = false;  // a read-modify-write
        Change* previous = nullptr;
        Change* next = nullptr;
    };

    ChangeOrder() = default;
    ChangeOrder(const ChangeOrder&) = delete;
    ChangeOrder& operator=(const ChangeOrder&) = delete;
    ~ChangeOrder() { CHECK(first_ == nullptr, "all changes have ended"); }

    /// Lists `change`, which stays in place until end(). True: go on; false: wait_turn() first.
    bool start(Change* change) {
        change->previous = last_;
        change->next = nullptr;
        (last_ == nullptr ? first_ : last_->next) = change;
        last_ = change;
        if (change->modifies) ++modifying_;
        return modifying_ == 0 || may_go(change);
    }
    io::Task<void> wait_turn(Change* change) {
        ++waiting_;
        while (!may_go(change)) co_await ended_.wait();
        --waiting_;
    }
    void end(Change* change) {
        (change->previous == nullptr ? first_ : change->previous->next) = change->next;
        (change->next == nullptr ? last_ : change->next->previous) = change->previous;
        if (change->modifies) --modifying_;
        if (waiting_ > 0) ended_.pulse();
    }

  private:
    bool may_go(const Change* change) const {
        if (faults::rule_off("rule.nbd_change_order")) return true;
        for (const Change* other = change->previous; other != nullptr; other = other->previous) {
            if ((other->modifies || change->modifies) && other->range.overlaps(change->range))
                return false;
        }
        return true;
    }

    Change* first_ = nullptr;
    Change* last_ = nullptr;
    unsigned modifying_ = 0;
    unsigned waiting_ = 0;
    io::Event ended_;
};

}  // namespace ublkd::front::nbd
