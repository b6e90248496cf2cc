#include "ublkd/io/worker.h"

#include <pthread.h>

namespace ublkd::io {
namespace {
void name_this_thread(const std::string& name) {
    (void)pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
}
}  // namespace

Worker::Worker(std::string name)
    : thread_([this, name = std::move(name)] {
          name_this_thread(name);
          serve();
      }) {}

Worker::~Worker() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    wake_.notify_one();
    thread_.join();
}

void Worker::submit(std::function<void()> function) {
    {
        const std::lock_guard lock(mutex_);
        queue_.push_back(std::move(function));
    }
    wake_.notify_one();
}

void Worker::serve() {
    std::unique_lock lock(mutex_);
    for (;;) {
        wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
        if (queue_.empty()) return;
        auto function = std::move(queue_.front());
        queue_.pop_front();
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
