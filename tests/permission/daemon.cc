#include "tests/permission/daemon.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <thread>

#include "tests/permission/http_client.h"

namespace ublkd::permission_test {
namespace {

constexpr auto kStartDeadline = std::chrono::seconds(30);

/// In the child: becomes the daemon. Never returns.
[[noreturn]] void become_daemon(const std::filesystem::path& folder, const std::string& faults) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int log = ::open((folder / "log").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    ::dup2(log, STDOUT_FILENO);
    ::dup2(log, STDERR_FILENO);
    if (faults.empty())
        ::unsetenv("UBLKD_FAULTS");
    else
        ::setenv("UBLKD_FAULTS", faults.c_str(), 1);
    ::execl(UBLKD_BINARY, UBLKD_BINARY, "--state", folder.c_str(), nullptr);
    ::_exit(127);
}

}  // namespace

Daemon::Daemon() {
    std::string pattern = std::filesystem::temp_directory_path() / "ublkd-permission-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
}

Daemon::~Daemon() {
    kill_hard();
    std::filesystem::remove_all(folder_);
}

void Daemon::launch(const std::string& faults) {
    ended_by_ = 0;
    process_ = ::fork();
    if (process_ == 0) become_daemon(folder_, faults);
}

bool Daemon::start(const std::string& faults) {
    launch(faults);
    const auto deadline = std::chrono::steady_clock::now() + kStartDeadline;
    while (std::chrono::steady_clock::now() < deadline && !has_died()) {
        HttpClient client(socket());
        if (client.request("GET", "/v1/version")) return true;
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
}

bool Daemon::initialize() {
    HttpClient client(socket());
    const std::string pool = folder_ / "pool";
    const auto answer = client.request(
        "POST", "/v1/init", R"({"Path":")" + pool + R"(","Domain":"a","Buffered":true})");
    return answer && answer->status == 200;
}

void Daemon::kill_hard() {
    if (process_ < 0) return;
    ::kill(process_, SIGKILL);
    int status = 0;
    ::waitpid(process_, &status, 0);
    ended_by_ = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    process_ = -1;
}

bool Daemon::has_died() {
    if (process_ < 0) return true;
    int status = 0;
    if (::waitpid(process_, &status, WNOHANG) != process_) return false;
    ended_by_ = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    process_ = -1;
    return true;
}

std::string Daemon::log() const {
    std::ifstream in(folder_ / "log");
    return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace ublkd::permission_test
