#include "ublkd/daemon/engine.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace ublkd::daemon {
namespace {

/// Says that it has all features.
class Ublk final : public front::ublk::KernelDriver {
  public:
    io::Task<Result<void>> control(const front::ublk::ControlRequest* request) override {
        std::ranges::fill(request->buffer, std::byte{0xff});
        co_return Result<void>{};
    }
    Result<std::unique_ptr<front::ublk::DeviceChannel>> open(
        io::Reactor*, const front::ublk::uapi::DeviceInfo&) override {
        return fail(Errc::kUnsupported, "open");
    }
};

TEST(Engine, FindsUblkWhenItsModuleIsLoadedLate) {
    Configuration configuration;
    configuration.reactors = 1;
    configuration.buffer_mib = 4;
    bool loaded = false;
    const auto started = Engine::start(configuration, {}, [&loaded]() -> Engine::Driver {
        if (!loaded) return fail(Errc::kUnsupported, "no /dev/ublk-control");
        return std::make_unique<Ublk>();
    });
    ASSERT_TRUE(started);
    Engine& engine = **started;
    EXPECT_EQ(engine.ublk(), nullptr);
    EXPECT_STREQ(engine.no_ublk_reason().where, "no /dev/ublk-control");
    EXPECT_FALSE(engine.retry_ublk());
    loaded = true;
    EXPECT_TRUE(engine.retry_ublk());
    EXPECT_NE(engine.ublk(), nullptr);
    EXPECT_FALSE(engine.retry_ublk());  // nothing is new
}

}  // namespace
}  // namespace ublkd::daemon
