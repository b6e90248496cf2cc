// Many callers, one disk operation: a flush, a superblock or a map write that covers everything
// asked for before it began. Who calls while a round is under way is served by the next one, and
// all of these share it. No heap; one reactor's thread.
#pragma once

#include "ublkd/base/result.h"
#include "ublkd/io/sync.h"
#include "ublkd/io/task.h"

namespace ublkd::store {

class SharedRound {
  public:
    using Round = io::Task<Result<void>> (*)(void* context);
    SharedRound(Round round, void* context) : round_(round), context_(context) {}

    /// Ends with the outcome of a round that began after this call; with `join_running` that of one
    /// which is under way already counts too (the caller knows that it covers what it needs).
    io::Task<Result<void>> run(bool join_running = false);
    bool is_running() const { return running_; }

  private:
    struct Ticket {
        Ticket* next = nullptr;
        bool done = false;
        Result<void> outcome;
    };

    Round round_;
    void* context_;
    bool running_ = false;
    Ticket* waiting_ = nullptr;  // for the next round
    Ticket* served_ = nullptr;   // by the one under way
    io::Event ended_;
};

inline io::Task<Result<void>> SharedRound::run(bool join_running) {
    Ticket mine;
    Ticket*& list = running_ && join_running ? served_ : waiting_;
    mine.next = list;
    list = &mine;
    while (!mine.done) {
        if (running_) {
            co_await ended_.wait();
            continue;
        }
        running_ = true;
        served_ = waiting_;
        waiting_ = nullptr;
        const Result<void> outcome = co_await round_(context_);
        running_ = false;
        for (Ticket* ticket = served_; ticket != nullptr; ticket = ticket->next) {
            ticket->outcome = outcome;
            ticket->done = true;
        }
        served_ = nullptr;
        ended_.pulse();
    }
    co_return mine.outcome;
}

}  // namespace ublkd::store
