#include "tests/permission/askers.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/permission/http_client.h"

namespace ublkd::permission_test {
namespace {

constexpr std::size_t kBarrierBytes = 128;
static_assert(sizeof(pthread_barrier_t) <= kBarrierBytes);
constexpr auto kPause = std::chrono::milliseconds(3);  // before a question is asked again

std::string id(const char* prefix, unsigned value) {
    char text[64];
    std::snprintf(text, sizeof text, "%s0%016x", prefix, value);
    return text;
}

}  // namespace

Board::Board(unsigned processes, unsigned questions)
    : processes_(processes), questions_(questions) {
    const std::size_t count = std::size_t{processes} * questions;
    bytes_ = kBarrierBytes + count * sizeof(Told);
    memory_ = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) throw std::bad_alloc();
    pthread_barrierattr_t attributes;
    pthread_barrierattr_init(&attributes);
    pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(static_cast<pthread_barrier_t*>(memory_), &attributes, processes);
    pthread_barrierattr_destroy(&attributes);
    tolds_ = reinterpret_cast<Told*>(static_cast<std::byte*>(memory_) + kBarrierBytes);
    for (std::size_t i = 0; i < count; ++i) new (tolds_ + i) Told();
}

Board::~Board() { ::munmap(memory_, bytes_); }

void Board::wait_at_barrier() const {
    pthread_barrier_wait(static_cast<pthread_barrier_t*>(memory_));
}

Askers::Askers(const Board& board, const std::function<void(unsigned)>& body) {
    for (unsigned index = 0; index < board.processes(); ++index) {
        const pid_t process = ::fork();
        if (process == 0) {
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            body(index);
            ::_exit(0);
        }
        processes_.push_back(process);
    }
}

Askers::~Askers() { kill_all(); }

void Askers::kill_all() {
    for (const pid_t process : processes_) {
        ::kill(process, SIGKILL);
        ::waitpid(process, nullptr, 0);
    }
    processes_.clear();
}

bool Askers::finished() {
    std::erase_if(processes_, [&](pid_t process) {
        int status = 0;
        if (::waitpid(process, &status, WNOHANG) != process) return false;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) failed_ = true;
        return true;
    });
    if (failed_) kill_all();
    return processes_.empty();
}

bool Askers::finish(const std::function<void()>& meanwhile, unsigned deadline_seconds) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(deadline_seconds);
    while (!finished()) {
        if (std::chrono::steady_clock::now() > deadline) {
            failed_ = true;
            kill_all();
            break;
        }
        meanwhile();
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return !failed_;
}

std::string host_of(unsigned index) { return id("host-", index + 1); }
std::string incarnation_of(unsigned index) { return id("rep-", index + 1); }
std::string resource_of(const std::string& prefix, unsigned question) {
    return prefix + "/replica/" + std::to_string(question);
}

void ask_until_answered(HttpClient& client, const std::string& resource, unsigned index,
                        Told& told) {
    const std::string body = R"({"ResourceId":")" + resource + R"(","HostId":")" + host_of(index) +
                             R"(","Incarnation":")" + incarnation_of(index) + R"("})";
    while (true) {
        const auto answer = client.request("POST", "/v1/permissions", body);
        if (answer && answer->status == 200) {
            const auto json = nlohmann::json::parse(answer->body, nullptr, false);
            const std::string what = json.is_object() ? json.value("Answer", "") : "";
            const std::string holder = json.is_object() ? json.value("HostId", "") : "";
            // "host-0" and 16 hex digits.
            if (holder.size() == 22)
                told.holder = static_cast<std::uint8_t>(std::stoul(holder.substr(6), nullptr, 16));
            told.outcome = what == "granted"           ? Told::Outcome::kGranted
                           : what == "held-by-another" ? Told::Outcome::kDenied
                                                       : Told::Outcome::kOdd;
            return;
        }
        if (answer && answer->status < 500) {
            told.outcome = Told::Outcome::kOdd;
            return;
        }
        ++told.lost;
        std::this_thread::sleep_for(kPause);
    }
}

Tally tally(const Board& board) {
    Tally sum;
    for (unsigned question = 0; question < board.questions(); ++question) {
        unsigned grants = 0;
        unsigned holder = 0;
        for (unsigned process = 0; process < board.processes(); ++process) {
            const Told& told = board.told(process, question);
            sum.lost_answers += told.lost;
            if (told.outcome == Told::Outcome::kGranted) {
                ++grants;
                holder = process + 1;
            } else if (told.outcome != Told::Outcome::kDenied) {
                ++sum.odd;
            }
        }
        ++(grants == 0 ? sum.granted_never : grants == 1 ? sum.granted_once : sum.granted_twice);
        for (unsigned process = 0; process < board.processes(); ++process) {
            if (grants == 1 && board.told(process, question).holder != holder) ++sum.wrong_holder;
        }
    }
    return sum;
}

void expect_one_grant_each(const Board& board) {
    const Tally sum = tally(board);
    EXPECT_EQ(sum.granted_once, board.questions());
    EXPECT_EQ(sum.granted_twice, 0u);
    EXPECT_EQ(sum.granted_never, 0u);
    EXPECT_EQ(sum.odd, 0u);
    EXPECT_EQ(sum.wrong_holder, 0u);
}

}  // namespace ublkd::permission_test
