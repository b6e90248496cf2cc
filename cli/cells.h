// The views (output.h) of every kind of resource: which columns there are and how a cell is made of
// the API's JSON.
#pragma once

#include <string>

#include "cli/output.h"

namespace ublkd::cli {

const View& volume_view();
const View& attachment_view();
const View& pool_view();
const View& host_view();
const View& instance_view();
const View& permission_view();
const View& event_view();
const View& tag_view();
const View& orphan_view();
const View& finding_view();

/// "ok 2/2", "sync 63% 1/2", "degraded 1/2", "blocked R5 1/2".
std::string health_text(const api::Json& volume);

}  // namespace ublkd::cli
