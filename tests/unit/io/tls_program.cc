#include "tests/unit/io/tls_program.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <sstream>

#include "ublkd/base/fd.h"

namespace ublkd::io {
namespace {

constexpr int kTries = 1000;  // of 10 ms

Fd open_output(const std::string& folder) {
    return Fd(::open((folder + "/output").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
}

}  // namespace

Program::Program(const std::vector<std::string>& arguments, int input, int output) {
    std::vector<char*> words;
    for (const std::string& each : arguments) words.push_back(const_cast<char*>(each.c_str()));
    words.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ != 0) return;
    ::dup2(input, 0);
    ::dup2(output, 1);
    ::dup2(output, 2);
    ::execvp(words[0], words.data());
    ::_exit(127);
}

Program::~Program() {
    if (ended_) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
}

int Program::wait() {
    for (int i = 0; i < kTries; ++i) {
        int status = 0;
        if (::waitpid(pid_, &status, WNOHANG) == pid_) {
            ended_ = true;
            return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        }
        ::usleep(10'000);
    }
    return -1;
}

std::unique_ptr<Program> s_client(Reactor* reactor, Socket* server, const std::string& folder,
                                  const std::vector<std::string>& more) {
    const std::string path = folder + "/s_client.sock";
    ::unlink(path.c_str());
    const Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const auto address = unix_address(path);
    EXPECT_TRUE(address);
    EXPECT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address),
              0);
    EXPECT_EQ(::listen(listener.get(), 1), 0);
    std::vector<std::string> arguments{"openssl", "s_client", "-quiet", "-unix", path};
    arguments.insert(arguments.end(), more.begin(), more.end());
    Fd input(::open((folder + "/input").c_str(), O_RDONLY | O_CLOEXEC));
    if (!input) input = Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    auto program = std::make_unique<Program>(arguments, input.get(), open_output(folder).get());
    *server = Socket(*reactor, ::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    return program;
}

std::unique_ptr<Program> s_server(const std::string& folder, const std::vector<std::string>& more,
                                  std::uint16_t* port) {
    std::vector<std::string> arguments{"openssl", "s_server", "-rev",       "-naccept",
                                       "1",       "-accept",  "127.0.0.1:0"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Fd input(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    auto program = std::make_unique<Program>(arguments, input.get(), open_output(folder).get());
    for (int i = 0; i < kTries; ++i) {
        std::ostringstream said;
        said << std::ifstream(folder + "/output").rdbuf();
        const std::string text = said.str();
        const std::size_t at = text.find("ACCEPT 127.0.0.1:");
        if (at != std::string::npos && text.find('\n', at) != std::string::npos) {
            *port = static_cast<std::uint16_t>(std::stoul(text.substr(at + 17)));
            return program;
        }
        ::usleep(10'000);
    }
    ADD_FAILURE() << "openssl s_server does not listen";
    return program;
}

}  // namespace ublkd::io
