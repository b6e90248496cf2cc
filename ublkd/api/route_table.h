// The API's routes: method and path pattern -> handler. dispatch() is the whole of a request
// between HTTP and the handlers: path and query are decoded, the body is parsed, what is not
// allowed yet is refused, and every refusal becomes the error body {code, message, request_id}.
// Handlers see a Request and give a Json or an ApiError; they know no HTTP. docs/openapi.yaml
// describes every route, and a test holds the two together in both directions.
//
// Made once at start, then read-only: dispatch() may be called from many threads. Handlers may
// block.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "ublkd/api/errors.h"
#include "ublkd/api/json.h"
#include "ublkd/api/peer.h"

namespace ublkd::api {

enum class Method { kGet, kPost, kPut, kPatch, kDelete };
std::string_view to_string(Method method);

struct Request {
    std::map<std::string, std::string, std::less<>>
        path;  // {name} of the pattern -> value, decoded
    std::map<std::string, std::string, std::less<>> query;
    Json body;  // null where there was none
    Caller caller;
    std::string request_id;

    /// The value of a path parameter; the route table fills in every one that the pattern names.
    const std::string& at(std::string_view name) const { return path.find(name)->second; }
    /// "" where the query does not have it.
    std::string query_value(std::string_view name) const;
};

using Handler = std::function<ApiResult<Json>(const Request&)>;

struct Route {
    Method method;
    std::string pattern;    // "/v1/volumes/{volume}"
    std::string operation;  // "DescribeVolume", unique
    Handler handler;
    std::vector<std::string> query{};  // names that are allowed in the query
    bool before_init = false;          // answers although the daemon is not initialized
    int success_status = 200;
};

/// A request as the server gives it: text alone.
struct RawRequest {
    std::string method;
    std::string target;  // path and query, percent-encoded
    std::string body;
    Caller caller;
};

struct Response {
    int status = 200;
    std::string body;  // JSON with a newline
    std::string request_id;
};

class RouteTable {
  public:
    /// `initialized`: asked before each handler that has not before_init.
    explicit RouteTable(std::function<bool()> initialized) : initialized_(std::move(initialized)) {}
    void add(Route route);
    const std::vector<Route>& routes() const { return routes_; }
    Response dispatch(const RawRequest& raw) const;

  private:
    ApiResult<Json> handle(const RawRequest& raw, Request& request, int& status) const;
    std::function<bool()> initialized_;
    std::vector<Route> routes_;
};

/// nullopt where a % is not followed by two hex digits.
std::optional<std::string> percent_decoded(std::string_view text);
Json error_body(const ApiError& error, const std::string& request_id);

}  // namespace ublkd::api
