// What init and pool add share: the options of a pool, and the request made of them.
#pragma once

#include <string>
#include <vector>

#include "cli/command.h"

namespace ublkd::cli {

std::vector<Option> pool_options();
Outcome<api::Json> pool_request(const Context& context, const std::string& folder);
std::string pool_line(const api::Json& pool);
/// On stderr what the daemon warns of, say how the pool is mounted.
void note_pool(const Context& context, const api::Json& pool);

}  // namespace ublkd::cli
