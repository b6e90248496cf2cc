// docs/openapi.yaml against the routes, in both directions: each route is described, each
// description has its route; method, path, name, path parameters and query parameters agree.
// bad_input_test.cc compares the fields of bodies, answers_test.cc those of answers.
#include "tests/unit/api/openapi.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ublkd/api/routes.h"

namespace ublkd::api {
namespace {

struct Described {
    std::string method, path, operation;
    std::set<std::string> query;
    auto operator<=>(const Described&) const = default;
};
void PrintTo(const Described& item, std::ostream* out) {
    *out << item.method << " " << item.path << " " << item.operation;
    for (const auto& name : item.query) *out << " ?" << name;
}

class OpenApiTest : public testing::Test {
  protected:
    OpenApiTest() {
        add_routes(table_,
                   {nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr});
    }

    const OpenApi described_ = read_openapi();
    RouteTable table_{[] { return true; }};
};

TEST_F(OpenApiTest, DescribesEveryRouteAndNothingElse) {
    std::set<Described> described;
    for (const auto& operation : described_.operations) {
        Described item{operation.method, operation.path, operation.operation, {}};
        for (const auto& [name, type] : operation.query) item.query.insert(name);
        EXPECT_TRUE(described.insert(item).second) << operation.operation << " is there twice";
    }
    std::set<Described> routed;
    for (const Route& route : table_.routes()) {
        routed.insert({std::string(to_string(route.method)),
                       route.pattern,
                       route.operation,
                       {route.query.begin(), route.query.end()}});
    }
    EXPECT_GT(routed.size(), 30u);
    EXPECT_THAT(described, testing::ContainerEq(routed));
}

TEST_F(OpenApiTest, NamesThePathParametersOfEachPath) {
    for (const auto& operation : described_.operations) {
        std::set<std::string> wanted;
        for (std::size_t at = operation.path.find('{'); at != std::string::npos;
             at = operation.path.find('{', at + 1)) {
            wanted.insert(operation.path.substr(at + 1, operation.path.find('}', at) - at - 1));
        }
        EXPECT_EQ(operation.path_parameters, wanted) << operation.path;
    }
}

}  // namespace
}  // namespace ublkd::api
