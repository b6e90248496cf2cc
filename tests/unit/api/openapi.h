// docs/openapi.yaml as the tests need it: operations with their parameters, and the objects that
// requests and answers are. Reads the few forms of YAML that the file is written in. Plain values;
// no thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ublkd/api/json.h"

namespace ublkd::api {

struct DescribedField {
    std::string name;
    std::string type;   // integer boolean string array; "" where it is an object of its own
    std::string items;  // of an array: the type or the object of its items; else the object
    std::optional<std::uint64_t> least, most;
    std::vector<std::string> choices;
    bool required = false;
};

struct DescribedOperation {
    std::string method, path, operation;
    std::map<std::string, std::string> query;  // name -> type
    std::set<std::string> path_parameters;
    std::string body;    // the object that its body is; "" where there is none
    std::string answer;  // the object that it answers, or of which its list is
    std::string list;    // the list's key; "" where it answers one object
    bool plans = false;  // with DryRun, or the query dry_run, it answers a Plan
};

struct OpenApi {
    std::vector<DescribedOperation> operations;
    std::map<std::string, std::vector<DescribedField>> objects;
};

/// A body of the object that is taken, with what is needed alone.
Json least_good_body(const std::string& object);

/// docs/openapi.yaml of this source tree; a form that it cannot read is a failed test.
OpenApi read_openapi();

}  // namespace ublkd::api
