#include "ublkd/daemon/start_mark.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "ublkd/daemon/system.h"

namespace ublkd::daemon {

StartMark::StartMark(const Configuration& configuration)
    : path_(configuration.api_socket + ".starting") {
    (void)make_folder(configuration.state_dir, 0700);
    (void)make_folder(configuration.run_dir, 0755);
    file_ = Fd(::open(path_.c_str(), O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644));
    // Shared: another daemon's start holds up nobody, and who looks asks for it alone.
    if (file_) (void)flock(file_.get(), LOCK_SH);
}

StartMark::~StartMark() {
    if (file_) (void)::unlink(path_.c_str());
}

}  // namespace ublkd::daemon
