// Between HTTP and the handlers: paths, queries, bodies, who may, what answers before init, and the
// error body.
#include "ublkd/api/route_table.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

namespace ublkd::api {
namespace {

class RouteTableTest : public testing::Test {
  protected:
    RouteTableTest() {
        table_.add({Method::kGet,
                    "/v1/things/{thing}",
                    "DescribeThing",
                    [](const Request& request) -> ApiResult<Json> {
                        return Json::object()
                            .set("Thing", request.at("thing"))
                            .set("Deep", request.query_value("deep"));
                    },
                    {"deep"}});
        table_.add({Method::kPost, "/v1/things", "CreateThing",
                    [](const Request& request) -> ApiResult<Json> {
                        if (request.body["Fail"].as_bool()) return refuse("VolumeInUse", "busy");
                        return Json::object().set("Got", request.body);
                    }});
        table_.add({Method::kGet,
                    "/v1/version",
                    "DescribeVersion",
                    [](const Request&) -> ApiResult<Json> { return Json::object(); },
                    {},
                    true});
    }
    Response ask(const std::string& method, const std::string& target, const std::string& body = "",
                 bool allowed = true) {
        return table_.dispatch({method, target, body, Caller{1000, 1000, 1, allowed}});
    }
    void expect_refused(const Response& response, int status, const std::string& code) {
        const auto body = Json::parse(response.body);
        ASSERT_TRUE(body) << response.body;
        EXPECT_EQ(response.status, status) << response.body;
        EXPECT_EQ((*body)["code"].as_string(), code);
        EXPECT_FALSE((*body)["message"].as_string().empty());
        EXPECT_EQ((*body)["request_id"].as_string(), response.request_id);
        EXPECT_EQ(body->members().size(), 3u);
    }
    bool initialized_ = true;
    RouteTable table_{[this] { return initialized_; }};
};

TEST_F(RouteTableTest, PathAndQueryReachTheHandlerDecoded) {
    EXPECT_EQ(ask("GET", "/v1/things/a%2Fb%20c?deep=x%26y").body,
              "{\"Thing\": \"a/b c\", \"Deep\": \"x&y\"}\n");
}

TEST_F(RouteTableTest, BodyReachesTheHandler) {
    EXPECT_EQ(ask("POST", "/v1/things", R"({"a":1})").body, "{\"Got\": {\"a\": 1}}\n");
}

TEST_F(RouteTableTest, HandlersRefusalIsTheErrorBody) {
    expect_refused(ask("POST", "/v1/things", R"({"Fail":true})"), 409, "VolumeInUse");
}

TEST_F(RouteTableTest, WhatIsNotRoutedIsRefused) {
    expect_refused(ask("GET", "/v1/other"), 404, "InvalidAction.NotFound");
    expect_refused(ask("GET", "/v1/things/a/b"), 404, "InvalidAction.NotFound");
    expect_refused(ask("GET", "/v1/things/"), 404, "InvalidAction.NotFound");
    expect_refused(ask("GET", "/v1/things/%4"), 404, "InvalidAction.NotFound");
    expect_refused(ask("DELETE", "/v1/things"), 405, "MethodNotAllowed");
    expect_refused(ask("POST", "/v1/things", "{"), 400, "InvalidRequest");
    expect_refused(ask("POST", "/v1/things", "7"), 400, "InvalidRequest");
    expect_refused(ask("GET", "/v1/things/x", "{}"), 400, "InvalidRequest");
    expect_refused(ask("GET", "/v1/things/x?depp=1"), 400, "InvalidRequest");
    expect_refused(ask("GET", "/v1/things/x?deep=%"), 400, "InvalidRequest");
}

TEST_F(RouteTableTest, OnlyTheAllowedMayAskAnything) {
    expect_refused(ask("GET", "/v1/version", "", false), 403, "UnauthorizedOperation");
    expect_refused(ask("GET", "/v1/other", "", false), 403, "UnauthorizedOperation");
}

TEST_F(RouteTableTest, BeforeInitOnlyWhatIsMarkedAnswers) {
    initialized_ = false;
    expect_refused(ask("GET", "/v1/things/x"), 409, "NotInitialized");
    expect_refused(ask("POST", "/v1/things", "{"), 409, "NotInitialized");
    EXPECT_EQ(ask("GET", "/v1/version").status, 200);
}

TEST(PeerCheck, OwnUserIsAdmittedAndKnown) {
    int pair[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    const Caller caller = caller_of(pair[0], std::nullopt);
    EXPECT_TRUE(caller.allowed);
    EXPECT_EQ(caller.pid, getpid());
    EXPECT_TRUE(is_admitted(pair[0], std::nullopt));
    EXPECT_FALSE(is_admitted(-1, std::nullopt)) << "what cannot be told is not admitted";
    close(pair[0]);
    close(pair[1]);
}

}  // namespace
}  // namespace ublkd::api
