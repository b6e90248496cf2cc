// A SqliteStore in a folder of its own that goes with the fixture.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "metadata/sqlite_store.h"
#include "tests/suites/metadata_suite.h"

namespace ublkd::metadata::test {

class TemporaryFolder {
  public:
    TemporaryFolder() {
        std::string pattern = std::filesystem::temp_directory_path() / "ublkd-metadata-XXXXXX";
        path_ = ::mkdtemp(pattern.data());
    }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    ~TemporaryFolder() { std::filesystem::remove_all(path_); }
    std::string file(const std::string& name) const { return path_ / name; }
    const std::filesystem::path& path() const { return path_; }

  private:
    std::filesystem::path path_;
};

class SqlitePlace : public MetadataPlace {
  public:
    Result<std::unique_ptr<MetadataStore>> open() override {
        auto opened = SqliteStore::open(folder_.file("metadata.db"));
        if (!opened) return fail(opened.error());
        return std::unique_ptr<MetadataStore>(std::move(*opened));
    }

  private:
    TemporaryFolder folder_;
};

inline std::unique_ptr<MetadataPlace> make_sqlite_place() {
    return std::make_unique<SqlitePlace>();
}

}  // namespace ublkd::metadata::test
