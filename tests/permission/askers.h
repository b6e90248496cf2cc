// Asking processes: each is forked, has its own connection and its own idea of what it was told,
// written into memory that all share; the test counts there, never in the daemon's store. A
// question whose answer was lost is asked again until it is answered (RetryForever), as a prepared
// host does.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace ublkd::permission_test {

/// What an asker was told about one resource (or a proposer about one number).
struct Told {
    enum class Outcome : std::uint8_t { kNothing, kGranted, kDenied, kOdd };
    std::atomic<Outcome> outcome = Outcome::kNothing;
    std::atomic<std::uint8_t> holder = 0;  // who has it, as the answer says: an asker's index + 1
    std::atomic<std::uint16_t> lost = 0;   // answers that were lost on the way
};

/// `processes` × `questions` of Told, and a barrier, in memory shared with the children.
class Board {
  public:
    Board(unsigned processes, unsigned questions);
    Board(const Board&) = delete;
    Board& operator=(const Board&) = delete;
    ~Board();

    Told& told(unsigned process, unsigned question) const {
        return tolds_[process * questions_ + question];
    }
    unsigned processes() const { return processes_; }
    unsigned questions() const { return questions_; }
    /// Waits for all processes. A process that ends early has to be noticed by the parent
    /// (Askers::finish).
    void wait_at_barrier() const;

  private:
    unsigned processes_;
    unsigned questions_;
    std::size_t bytes_;
    void* memory_;
    Told* tolds_;
};

/// Forks one process per row of the board, which runs `body(index)` and ends.
class Askers {
  public:
    Askers(const Board& board, const std::function<void(unsigned)>& body);
    Askers(const Askers&) = delete;
    Askers& operator=(const Askers&) = delete;
    /// Kills what still runs.
    ~Askers();

    /// Whether all have ended; notices one that ended badly, and then ends the others.
    bool finished();
    bool failed() const { return failed_; }
    /// Calls `meanwhile` every few milliseconds until all have ended. False where one failed or the
    /// deadline passed.
    [[nodiscard]] bool finish(const std::function<void()>& meanwhile, unsigned deadline_seconds);

  private:
    void kill_all();
    std::vector<pid_t> processes_;
    bool failed_ = false;
};

/// The ids under which asker `index` asks: a host, and an incarnation that it prepared.
std::string host_of(unsigned index);
std::string incarnation_of(unsigned index);
std::string resource_of(const std::string& prefix, unsigned question);

/// Asks for `resource` as asker `index` until there is an answer, and writes it into `told`.
class HttpClient;
void ask_until_answered(HttpClient& client, const std::string& resource, unsigned index,
                        Told& told);

/// What the askers' answers say, resource by resource.
struct Tally {
    unsigned granted_once = 0;
    unsigned granted_twice = 0;  // or more often: the failure that all this is about
    unsigned granted_never = 0;
    unsigned odd = 0;           // an answer that is neither a grant nor a denial
    unsigned wrong_holder = 0;  // a denial that names another than the one who was granted
    unsigned lost_answers = 0;
};
Tally tally(const Board& board);
void expect_one_grant_each(const Board& board);

}  // namespace ublkd::permission_test
