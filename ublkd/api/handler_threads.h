// The threads that run the API's handlers. One is made wherever all are busy, so that no request
// waits for another's handler: a long poll, a comparison of members, an operation that waits for a
// disk. Their number is bounded by who submits (the server has one request a connection). A few
// stay for what comes next. Thread-safe.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>

namespace ublkd::api {

class HandlerThreads {
  public:
    explicit HandlerThreads(unsigned kept) : kept_(kept) {}
    HandlerThreads(const HandlerThreads&) = delete;
    HandlerThreads& operator=(const HandlerThreads&) = delete;
    ~HandlerThreads() { join(); }

    void submit(std::function<void()> job);
    /// Until all that was submitted has ended; nobody calls submit() any more.
    void join();

  private:
    void serve();
    std::function<void()> take();

    const unsigned kept_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::function<void()>> jobs_;
    unsigned threads_ = 0;
    unsigned idle_ = 0;
    bool ending_ = false;
};

}  // namespace ublkd::api
