#include "ublkd/front/ublk/helper_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <sstream>

namespace ublkd::front::ublk {
namespace {

/// In the child: after a fork of a process with threads only plain system calls are safe.
void drop_descriptors() { (void)syscall(SYS_close_range, 0u, ~0u, 0u); }

constexpr int kPatienceMs = 10'000;

/// Exit status of the child, or an errno where it could not be made, was killed, or does not end.
int wait_for(pid_t child) {
    if (child < 0) return errno;
    const int handle = static_cast<int>(syscall(SYS_pidfd_open, child, 0));
    if (handle >= 0) {
        pollfd ended{handle, POLLIN, 0};
        const int found = poll(&ended, 1, kPatienceMs);
        close(handle);
        if (found == 0) return ETIMEDOUT;
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) return errno;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
}

/// Where `program` is: in PATH, or where a distribution puts it.
std::string find_program(const std::string& program) {
    const char* const path = std::getenv("PATH");
    std::istringstream folders(std::string(path == nullptr ? "" : path) +
                               ":/usr/sbin:/usr/bin:/sbin:/bin");
    for (std::string folder; std::getline(folders, folder, ':');) {
        const std::string file = folder + "/" + program;
        if (!folder.empty() && access(file.c_str(), X_OK) == 0) return file;
    }
    return "";
}

}  // namespace

int write_file_in_child(const std::string& path, const std::string& text) {
    const char* const name = path.c_str();
    const pid_t child = fork();
    if (child == 0) {
        drop_descriptors();
        const int fd = open(name, O_WRONLY | O_CLOEXEC);
        if (fd < 0) _exit(errno);
        _exit(write(fd, text.data(), text.size()) < 0 ? errno : 0);
    }
    return wait_for(child);
}

int try_claim_in_child(const std::string& path) {
    const char* const name = path.c_str();
    const pid_t child = fork();
    if (child == 0) {
        drop_descriptors();
        _exit(open(name, O_RDONLY | O_EXCL | O_CLOEXEC) < 0 ? errno : 0);
    }
    return wait_for(child);
}

bool start_in_background(const std::vector<std::string>& command) {
    const std::string program = find_program(command[0]);
    if (program.empty()) return false;
    std::vector<char*> arguments;
    for (const std::string& argument : command)
        arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        drop_descriptors();
        for (int i = 0; i < 3; ++i) (void)!open("/dev/null", O_RDWR);
        if (fork() == 0)
            execv(program.c_str(), arguments.data());  // init's child, once this one has ended
        _exit(0);
    }
    return wait_for(child) == 0;
}

}  // namespace ublkd::front::ublk
