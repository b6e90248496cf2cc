// Goal: hosting a replica goes the way of the claims: several candidates prepare, each asks, one is
// granted (P6), the others remove what they prepared (P3), and a holder that was away when its
// volume was deleted deletes what it has when it is back (P4). On one host the candidates are its
// pools, one per failure domain. Method: volumes are made and deleted through the API of the real
// daemon; what is on the disks of the pools is counted.
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/permission/daemon.h"
#include "tests/permission/http_client.h"

namespace ublkd::permission_test {
namespace {

namespace fs = std::filesystem;

class Hosting : public ::testing::Test {
  protected:
    void SetUp() override {
        ASSERT_TRUE(daemon_.start()) << daemon_.log();
        ASSERT_TRUE(daemon_.initialize()) << daemon_.log();
        const nlohmann::json second = {
            {"Path", pool(1).string()}, {"Domain", "b"}, {"Buffered", true}};
        HttpClient client(daemon_.socket());
        const auto added = client.request("POST", "/v1/pools", second.dump());
        ASSERT_TRUE(added && added->status == 200) << daemon_.log();
    }
    void TearDown() override {
        if (HasFailure()) std::fputs(daemon_.log().c_str(), stderr);
    }

    fs::path pool(int index) const { return daemon_.folder() / (index == 0 ? "pool" : "pool-b"); }
    /// Replica folders in a pool's disk, whole or half made.
    std::size_t replicas_in(const fs::path& pool) const {
        const fs::path folder = pool / "replicas";
        if (!fs::exists(folder)) return 0;
        return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), {}));
    }
    std::size_t replicas() const { return replicas_in(pool(0)) + replicas_in(pool(1)); }
    /// Whether `count` replicas are there at last, within 20 s (the sweeper works in the
    /// background).
    bool replicas_become(std::size_t count) const {
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
        while (replicas() != count && std::chrono::steady_clock::now() < deadline)
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
        return replicas() == count;
    }
    /// The new volume's id, "" where the daemon did not answer.
    std::string create_volume() {
        HttpClient client(daemon_.socket());
        const auto answer =
            client.request("POST", "/v1/volumes", R"({"SizeBytes":4194304,"Replicas":1})");
        if (!answer || answer->status != 200) return "";
        return nlohmann::json::parse(answer->body).value("VolumeId", "");
    }
    int delete_volume(const std::string& volume) {
        HttpClient client(daemon_.socket());
        const auto answer = client.request("DELETE", "/v1/volumes/" + volume);
        return answer ? answer->status : 0;
    }
    std::size_t volumes() {
        HttpClient client(daemon_.socket());
        const auto answer = client.request("GET", "/v1/volumes");
        return answer ? nlohmann::json::parse(answer->body)["Volumes"].size() : SIZE_MAX;
    }
    void restart(const std::string& faults = "") {
        daemon_.kill_hard();
        ASSERT_TRUE(daemon_.start(faults)) << daemon_.log();
    }

    Daemon daemon_;
};

TEST_F(Hosting, P6_TwoCandidatesHavePreparedBeforePermissionIsAsked) {
    // Each candidate waits between preparing and asking, and the daemon dies at the first question.
    restart("daemon.hosting.after_prepare=delay:1500;permission.before_store=crash@1");
    EXPECT_EQ(create_volume(), "");
    EXPECT_EQ(replicas_in(pool(0)), 1u);
    EXPECT_EQ(replicas_in(pool(1)), 1u);
    restart();
    // Whatever became of the volume, nobody keeps what it may not host.
    const std::size_t left = volumes();
    ASSERT_LE(left, 1u);
    EXPECT_TRUE(replicas_become(left));
}

TEST_F(Hosting, P3_LosersRemoveWhatTheyPrepared) {
    std::vector<std::string> made;
    for (std::size_t i = 1; i <= 4; ++i) {
        made.push_back(create_volume());
        ASSERT_NE(made.back(), "") << daemon_.log();
        EXPECT_EQ(replicas(), i);  // two prepared, one hosts
    }
    for (const std::string& volume : made) EXPECT_EQ(delete_volume(volume), 200);
    EXPECT_TRUE(replicas_become(0));
}

TEST_F(Hosting, P3_LosersRemoveWhatTheyPreparedAlsoAfterADeath) {
    restart("daemon.hosting.after_permission=crash@1");  // one is granted, and nobody hears of it
    EXPECT_EQ(create_volume(), "");
    EXPECT_GE(replicas(), 1u);
    restart();
    const std::size_t left = volumes();
    ASSERT_LE(left, 1u);
    EXPECT_TRUE(replicas_become(left));
}

TEST_F(Hosting, P4_HolderThatWasAwayDeletesWhenItIsBack) {
    const std::string volume = create_volume();
    ASSERT_NE(volume, "") << daemon_.log();
    const fs::path holder = replicas_in(pool(0)) == 1 ? pool(0) : pool(1);
    const fs::path away = daemon_.folder() / "unplugged";
    daemon_.kill_hard();
    fs::rename(holder, away);  // its disk is not there
    ASSERT_TRUE(daemon_.start()) << daemon_.log();
    EXPECT_EQ(delete_volume(volume), 200) << daemon_.log();
    EXPECT_EQ(replicas_in(away), 1u);
    daemon_.kill_hard();
    fs::rename(away, holder);
    ASSERT_TRUE(daemon_.start()) << daemon_.log();
    EXPECT_TRUE(replicas_become(0));
    EXPECT_EQ(volumes(), 0u);
}

}  // namespace
}  // namespace ublkd::permission_test
