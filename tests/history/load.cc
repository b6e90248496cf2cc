#include "tests/history/load.h"

#include <poll.h>

#include <algorithm>
#include <csignal>
#include <functional>
#include <memory>
#include <optional>
#include <random>

#include "tests/history/history_file.h"
#include "tests/history/nbd_connection.h"
#include "tests/history/stamp.h"

namespace ublkd::history {
namespace {

constexpr std::uint64_t kLargestSectors = 128;  // 64 KiB
constexpr std::uint64_t kHotSectors = 64;
constexpr Time kSecond = 1'000'000'000;
constexpr Time kReconnectAfter = kSecond / 50;
constexpr Time kConnectWithin = 2 * kSecond;
constexpr Time kLastAnswersWithin = 20 * kSecond;
constexpr int kPollMilliseconds = 10;

/// What a client does next: the action and its range. nullopt: nothing any more.
using Plan = std::function<std::optional<Operation>()>;

class RandomPlan {
  public:
    RandomPlan(std::uint64_t seed, unsigned reads, std::uint64_t sectors)
        : random_(seed), reads_(reads), sectors_(sectors) {}

    std::optional<Operation> operator()() {
        Operation operation;
        const bool reads = between(1, 100) <= reads_;
        const std::uint64_t kind = between(1, 60);
        operation.action = reads        ? Action::kRead
                           : kind <= 40 ? Action::kWrite
                           : kind <= 46 ? Action::kZero
                           : kind <= 52 ? Action::kDiscard
                                        : Action::kFlush;
        if (operation.action == Action::kFlush) return operation;
        operation.fua = operation.changes() && between(1, 4) == 1;
        const std::uint64_t area = between(0, 1) == 0 ? std::min(kHotSectors, sectors_) : sectors_;
        const std::uint64_t largest = std::min(std::uint64_t{1} << between(0, 7), area);
        operation.count = between(1, std::min(largest, kLargestSectors));
        operation.sector = between(0, area - operation.count);
        return operation;
    }

  private:
    std::uint64_t between(std::uint64_t low, std::uint64_t high) {
        return low + random_() % (high - low + 1);
    }
    std::mt19937_64 random_;
    unsigned reads_;
    std::uint64_t sectors_;
};

class ReadAll {
  public:
    explicit ReadAll(std::uint64_t sectors) : sectors_(sectors) {}
    std::optional<Operation> operator()() {
        if (at_ >= sectors_) return std::nullopt;
        Operation operation{.sector = at_, .count = std::min(kLargestSectors, sectors_ - at_)};
        at_ += operation.count;
        return operation;
    }

  private:
    std::uint64_t sectors_;
    std::uint64_t at_ = 0;
};

class Client {
  public:
    Client(const LoadOptions& options, HistoryWriter* history, std::uint32_t writer,
           std::size_t first_uri, Plan plan)
        : options_(options),
          history_(history),
          writer_(writer),
          uri_(first_uri),
          plan_(std::move(plan)),
          slots_(options.depth) {
        for (Slot& slot : slots_) slot.data.resize(kLargestSectors * kSectorBytes);
    }

    /// Connects where it is not, and begins what it may.
    void go_on() {
        const Time at = now();
        if (connection_.is_closed()) {
            if (at < reconnect_at_) return;
            connection_.start_connecting(options_.uris[uri_ % options_.uris.size()]);
            connecting_since_ = at;
            counted_ = false;
            if (connection_.is_closed()) lost();
            return;
        }
        if (!connection_.is_ready()) {
            if (options_.give_up_seconds > 0 && at > connecting_since_ + kConnectWithin) lost();
            return;
        }
        if (!counted_) {
            counted_ = true;
            ++connections_;
        }
        if (is_overdue(at)) return lost();
        for (Slot& slot : slots_) {
            if (!slot.busy && !ended_ && !begin(slot)) return;
        }
    }
    void handle_events(short events) {
        if (!connection_.is_closed() && !connection_.handle_events(events)) lost();
    }
    /// Begins nothing any more.
    void end() { ended_ = true; }
    bool is_idle() const {
        return ended_ && std::ranges::none_of(slots_, [](const Slot& slot) { return slot.busy; });
    }
    pollfd polled() const {
        return pollfd{.fd = connection_.fd(), .events = connection_.poll_events(), .revents = 0};
    }
    void count(LoadResult& result) const {
        result.begun += sequence_;
        result.answered += answered_;
        result.connections += connections_;
    }
    std::uint64_t answered() const { return answered_; }

  private:
    struct Slot {
        bool busy = false;
        Operation operation;
        std::vector<std::byte> data;
    };

    bool is_overdue(Time at) const {
        if (options_.give_up_seconds <= 0) return false;
        const auto longest = static_cast<Time>(options_.give_up_seconds * 1e9);
        return std::ranges::any_of(slots_, [&](const Slot& slot) {
            return slot.busy && at > slot.operation.begin + longest;
        });
    }

    void lost() {
        connection_.close();
        for (Slot& slot : slots_) slot.busy = false;  // their outcome stays unknown
        reconnect_at_ = now() + kReconnectAfter;
        ++uri_;
    }

    /// False where nothing more can be begun now.
    bool begin(Slot& slot) {
        auto planned = plan_();
        if (!planned) {
            ended_ = true;
            return false;
        }
        Operation& operation = slot.operation = std::move(*planned);
        operation.id = OperationId{writer_, ++sequence_};
        const auto data = std::span(slot.data).first(operation.count * kSectorBytes);
        if (operation.action == Action::kWrite) {
            for (std::uint64_t i = 0; i < operation.count; ++i)
                write_stamp(data.subspan(i * kSectorBytes).first<kSectorBytes>(), operation.id,
                            operation.sector + i);
        }
        slot.busy = true;
        operation.begin = now();
        history_->append(begin_line(operation));
        if (send(operation, data, [this, &slot](int error) { answered(slot, error); })) return true;
        lost();
        return false;
    }

    bool send(const Operation& operation, std::span<std::byte> data, NbdConnection::Done done) {
        const std::uint64_t offset = operation.sector * kSectorBytes;
        switch (operation.action) {
            case Action::kRead:
                return connection_.read(data, offset, std::move(done));
            case Action::kWrite:
                return connection_.write(data, offset, operation.fua, std::move(done));
            case Action::kZero:
                return connection_.zero(data.size(), offset, operation.fua, std::move(done));
            case Action::kDiscard:
                return connection_.discard(data.size(), offset, operation.fua, std::move(done));
            case Action::kFlush:
                return connection_.flush(std::move(done));
        }
        return false;
    }

    void answered(Slot& slot, int error) {
        Operation& operation = slot.operation;
        operation.end = now();
        operation.error = error;
        operation.outcome = error == 0 ? Operation::Outcome::kOk : Operation::Outcome::kFailed;
        if (error == 0 && operation.action == Action::kRead) {
            operation.seen = read_stamps(std::span(slot.data).first(operation.count * kSectorBytes),
                                         operation.sector);
        }
        history_->append(end_line(operation));
        ++answered_;
        slot.busy = false;
    }

    const LoadOptions& options_;
    HistoryWriter* history_;
    std::uint32_t writer_;
    std::size_t uri_;
    Plan plan_;
    NbdConnection connection_;
    std::vector<Slot> slots_;
    std::uint64_t sequence_ = 0;
    std::uint64_t answered_ = 0;
    std::uint64_t connections_ = 0;
    Time reconnect_at_ = 0;
    Time connecting_since_ = 0;
    bool counted_ = false;
    bool ended_ = false;
};

using Clients = std::vector<std::unique_ptr<Client>>;

void turn(const Clients& clients) {
    std::vector<pollfd> polled;
    for (const auto& client : clients) {
        client->go_on();
        polled.push_back(client->polled());
    }
    (void)poll(polled.data(), polled.size(), kPollMilliseconds);
    for (std::size_t i = 0; i < clients.size(); ++i) {
        // Also without an event: a connection that died while something was sent has none any more.
        clients[i]->handle_events(polled[i].revents);
    }
}

volatile std::sig_atomic_t told_to_end = 0;  // SIGTERM: as if its time had passed

bool all_idle(const Clients& clients) {
    return std::ranges::all_of(clients, [](const auto& client) { return client->is_idle(); });
}

}  // namespace

LoadResult run_load(const LoadOptions& options) {
    HistoryWriter history(options.history_path);
    LoadResult result;
    std::uint32_t writer = options.first_writer;
    Clients clients;
    for (unsigned i = 0; i < options.clients; ++i) {
        clients.push_back(
            std::make_unique<Client>(options, &history, writer++, i,
                                     RandomPlan(options.seed * 1'000'003 + options.first_writer + i,
                                                options.reads, options.sectors)));
    }
    const Time longest = now() + static_cast<Time>(options.seconds * 1e9);
    (void)std::signal(SIGTERM, [](int) { told_to_end = 1; });
    while (now() < longest && told_to_end == 0) turn(clients);
    const Time end = now();
    for (const auto& client : clients) client->end();
    while (!all_idle(clients) && now() < end + kLastAnswersWithin) turn(clients);
    for (const auto& client : clients) client->count(result);
    clients.clear();

    const std::uint64_t parts = (options.sectors + kLargestSectors - 1) / kLargestSectors;
    result.all_read_at_the_end = true;
    for (std::size_t i = 0; i < options.uris.size(); ++i) {
        LoadOptions this_uri = options;
        this_uri.uris = {options.uris[i]};
        Clients reader;
        reader.push_back(
            std::make_unique<Client>(this_uri, &history, writer++, 0, ReadAll(options.sectors)));
        const Time deadline = now() + kLastAnswersWithin;
        while (!reader.front()->is_idle() && now() < deadline) turn(reader);
        reader.front()->count(result);
        if (reader.front()->answered() < parts) result.all_read_at_the_end = false;
    }
    return result;
}

}  // namespace ublkd::history
