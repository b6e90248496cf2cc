// All tables of the metadata, each before those that refer to it. No state.
#pragma once

#include <span>

#include "metadata/value.h"

namespace ublkd::metadata {

std::span<const Table* const> all_tables();

}  // namespace ublkd::metadata
