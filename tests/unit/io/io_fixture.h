// A reactor on the test's thread, and a temporary folder on a file system with O_DIRECT where there
// is one.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "ublkd/io/reactor.h"

namespace ublkd::io {

class IoTest : public ::testing::Test {
  protected:
    IoTest()
        : reactor_(
              std::move(*Reactor::create(ReactorOptions{.entries = 64, .registered_files = 16}))) {}
    ~IoTest() override {
        if (!folder_.empty()) std::filesystem::remove_all(folder_);
    }

    template <class T>
    T run(Task<T> task) {
        return reactor_->run_until_complete(std::move(task));
    }
    const std::string& folder() {
        if (folder_.empty()) {
            const char* const base = std::getenv("TEST_TMPDIR");
            std::string pattern =
                std::string(base != nullptr ? base : "/var/tmp") + "/ublkd-io-XXXXXX";
            if (mkdtemp(pattern.data()) == nullptr) std::abort();
            folder_ = pattern;
        }
        return folder_;
    }

    std::unique_ptr<Reactor> reactor_;

  private:
    std::string folder_;
};

}  // namespace ublkd::io
