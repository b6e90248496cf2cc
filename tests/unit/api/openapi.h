// docs/openapi.yaml as the tests need it: operations with their parameters, and the objects that
// requests are. Reads the few forms of YAML that the file is written in. Plain values; no thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace ublkd::api {

struct DescribedField {
    std::string name;
    std::string type;   // integer boolean string array; "" where it is an object of its own
    std::string items;  // of an array: the type or the object of its items
    std::optional<std::uint64_t> least, most;
    std::vector<std::string> choices;
    bool required = false;
};

struct DescribedOperation {
    std::string method, path, operation;
    std::map<std::string, std::string> query;  // name -> type
    std::set<std::string> path_parameters;
    std::string body;  // the object that its body is; "" where there is none
};

struct OpenApi {
    std::vector<DescribedOperation> operations;
    std::map<std::string, std::vector<DescribedField>> objects;
};

/// docs/openapi.yaml of this source tree; a form that it cannot read is a failed test.
OpenApi read_openapi();

}  // namespace ublkd::api
