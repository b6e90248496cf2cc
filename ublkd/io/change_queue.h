// Changes (writes, zeroing) of one device that are under way, in order of arrival. Most run side by
// side; an exclusive one (a read-modify-write, a hole) waits for earlier ones that it overlaps, and
// later ones wait for it, so nobody waits in a ring. The nodes live in the requests: no heap. While
// nothing exclusive is under way a change costs two pointer updates.
#pragma once

#include <cstdint>

#include "ublkd/base/check.h"
#include "ublkd/base/units.h"
#include "ublkd/io/sync.h"

namespace ublkd::io {

struct QueuedChange {
    Range range;  // whole blocks
    bool exclusive = false;
    QueuedChange* earlier = nullptr;
    QueuedChange* later = nullptr;
};

class ChangeQueue {
  public:
    ChangeQueue() = default;
    ChangeQueue(const ChangeQueue&) = delete;
    ChangeQueue& operator=(const ChangeQueue&) = delete;
    ~ChangeQueue() { CHECK(newest_ == nullptr, "all changes have ended"); }

    bool empty() const { return newest_ == nullptr; }
    void add(QueuedChange* change) {
        change->earlier = newest_;
        change->later = nullptr;
        if (newest_ != nullptr) newest_->later = change;
        newest_ = change;
        if (change->exclusive) ++exclusive_;
    }
    void remove(QueuedChange* change) {
        if (change->earlier != nullptr) change->earlier->later = change->later;
        if (change->later != nullptr) {
            change->later->earlier = change->earlier;
        } else {
            newest_ = change->earlier;
        }
        if (change->exclusive) --exclusive_;
        ended_.pulse();
    }
    /// Whether an earlier change stands in the way; then await one_ended() and ask again.
    bool must_wait(const QueuedChange& change) const {
        if (exclusive_ == 0) return false;
        for (const QueuedChange* other = change.earlier; other != nullptr; other = other->earlier) {
            if ((change.exclusive || other->exclusive) && other->range.overlaps(change.range))
                return true;
        }
        return false;
    }
    Event::Awaiter one_ended() { return ended_.wait(); }

  private:
    QueuedChange* newest_ = nullptr;
    std::uint64_t exclusive_ = 0;
    Event ended_;
};

/// A place in the queue for as long as it lives.
class Queued {
  public:
    Queued(ChangeQueue* queue, Range range, bool exclusive)
        : queue_(queue), change_{range, exclusive} {
        queue_->add(&change_);
    }
    Queued(const Queued&) = delete;
    Queued& operator=(const Queued&) = delete;
    ~Queued() { queue_->remove(&change_); }
    bool must_wait() const { return queue_->must_wait(change_); }
    Event::Awaiter one_ended() { return queue_->one_ended(); }

  private:
    ChangeQueue* queue_;
    QueuedChange change_;
};

}  // namespace ublkd::io
