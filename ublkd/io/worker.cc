#include "ublkd/io/worker.h"

#include <pthread.h>

namespace ublkd::io {
namespace {
void name_this_thread(const std::string& name) {
    (void)pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
}
}  // namespace

Worker::Worker(const std::string& name, AtEnd at_end)
    : at_end_(at_end), thread_([state = state_, name] {
          name_this_thread(name);
          serve(*state);
      }) {}

Worker::~Worker() {
    {
        const std::lock_guard lock(state_->mutex);
        state_->ending = true;
    }
    state_->wake.notify_one();
    at_end_ == AtEnd::kWait ? thread_.join() : thread_.detach();
}

void Worker::submit(std::function<void()> function) {
    {
        const std::lock_guard lock(state_->mutex);
        state_->queue.push_back(std::move(function));
    }
    state_->wake.notify_one();
}

void Worker::serve(State& state) {
    std::unique_lock lock(state.mutex);
    for (;;) {
        state.wake.wait(lock, [&] { return state.ending || !state.queue.empty(); });
        if (state.queue.empty()) return;
        auto function = std::move(state.queue.front());
        state.queue.pop_front();
        lock.unlock();
        function();
        function = nullptr;
        lock.lock();
    }
}

Result<std::unique_ptr<ReactorThread>> ReactorThread::start(std::string name,
                                                            const ReactorOptions& options,
                                                            std::function<void()> prepare) {
    std::unique_ptr<ReactorThread> made(new ReactorThread());
    std::promise<Result<Reactor*>> started;
    auto future = started.get_future();
    made->thread_ = std::thread([name = std::move(name), options, prepare = std::move(prepare),
                                 &started, stop_called = made->stop_called_.get_future()] {
        name_this_thread(name);
        if (prepare) prepare();
        auto reactor = Reactor::create(options);
        if (!reactor) {
            started.set_value(fail(reactor.error()));
            return;
        }
        Reactor& served = **reactor;
        started.set_value(&served);
        served.run();
        stop_called.wait();
    });
    const auto reactor = future.get();
    if (!reactor) {
        made->thread_.join();
        return fail(reactor.error());
    }
    made->reactor_ = *reactor;
    return made;
}

ReactorThread::~ReactorThread() {
    if (!thread_.joinable()) return;
    reactor_->stop();
    stop_called_.set_value();
    thread_.join();
}

}  // namespace ublkd::io
