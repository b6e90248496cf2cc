// What "pool drain" and "host drain" share: the request, its plan, and the wait for its end. One
// thread.
#pragma once

#include <string>
#include <vector>

#include "cli/command.h"

namespace ublkd::cli {

std::vector<Option> drain_options();

/// What is drained: in the API, in messages, and in its view.
struct Drained {
    std::string path;  // "/v1/pools/pool-..."
    const char* name_key;
    const char* id_key;  // also in what GET /v1/drains tells
    const View& (*view)();
};
Outcome<int> drain(Context& context, const Drained& what);

}  // namespace ublkd::cli
