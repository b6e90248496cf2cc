// A folder of its own for one test, deleted with all in it; on the disk (TMPDIR or /var/tmp), since
// O_DIRECT is tested.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

#include "ublkd/base/check.h"

namespace ublkd::test {

class TemporaryFolder {
  public:
    TemporaryFolder() {
        const char* const base = std::getenv("TMPDIR");
        path_ = std::string(base != nullptr ? base : "/var/tmp") + "/ublkd-store.XXXXXX";
        CHECK(mkdtemp(path_.data()) != nullptr, "a temporary folder");
    }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    ~TemporaryFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    const std::string& path() const { return path_; }

  private:
    std::string path_;
};

}  // namespace ublkd::test
