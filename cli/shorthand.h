// Structures as the options of aws's CLI take them: "Key=k,Value=v", "Name=status,Values=a,b",
// "ResourceType=volume,Tags=[{Key=k,Value=v}]", or the same as JSON. No state.
#pragma once

#include <string>
#include <vector>

#include "cli/client.h"

namespace ublkd::cli {

/// The objects of one word: one, or those of a JSON array. A list without brackets ("Values=a,b")
/// is an array. `option` is for the message.
Outcome<std::vector<api::Json>> parse_structures(const std::string& option,
                                                 const std::string& word);

}  // namespace ublkd::cli
