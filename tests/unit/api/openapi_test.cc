// docs/openapi.yaml against the routes, in both directions: each route is described, each
// description has its route; method, path, name, path parameters and query parameters agree. Reads
// the few forms of YAML that the file is written in.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <string>

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

std::string value_after(const std::string& line, const std::string& key) {
    const auto at = line.find(key);
    if (at == std::string::npos) return "";
    auto value = line.substr(at + key.size());
    return value.substr(0, value.find_first_of(",}"));
}

std::string upper(std::string text) {
    for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    return text;
}

class OpenApiTest : public testing::Test {
  protected:
    void SetUp() override {
        std::ifstream file(UBLKD_SOURCE_DIR "/docs/openapi.yaml");
        ASSERT_TRUE(file) << "docs/openapi.yaml";
        std::string path;
        Described* operation = nullptr;
        bool in_paths = false;
        std::vector<Described> found;
        found.reserve(200);
        for (std::string line; std::getline(file, line);) {
            if (!line.empty() && line[0] != ' ') in_paths = line == "paths:";
            if (!in_paths) continue;
            const auto indent = line.find_first_not_of(' ');
            if (indent == 2) {
                path = line.substr(2, line.size() - 3);
                operation = nullptr;
            } else if (indent == 4 && line != "    parameters:") {
                operation = &found.emplace_back(
                    Described{upper(line.substr(4, line.size() - 5)), path, "", {}});
            } else if (operation != nullptr && line.find("operationId: ") != std::string::npos) {
                operation->operation = value_after(line, "operationId: ");
            } else if (line.find("in: query") != std::string::npos) {
                ASSERT_NE(operation, nullptr) << line;
                operation->query.insert(value_after(line, "name: "));
            } else if (line.find("in: path") != std::string::npos) {
                path_parameters_[path].insert(value_after(line, "name: "));
            }
        }
        described_ = {found.begin(), found.end()};
        ASSERT_EQ(described_.size(), found.size());
        add_routes(table_, {nullptr, nullptr, nullptr, nullptr, nullptr, nullptr});
    }
    std::set<Described> described_;
    std::map<std::string, std::set<std::string>> path_parameters_;
    RouteTable table_{[] { return true; }};
};

TEST_F(OpenApiTest, DescribesEveryRouteAndNothingElse) {
    std::set<Described> routed;
    for (const Route& route : table_.routes()) {
        routed.insert({std::string(to_string(route.method)),
                       route.pattern,
                       route.operation,
                       {route.query.begin(), route.query.end()}});
    }
    EXPECT_GT(routed.size(), 30u);
    EXPECT_THAT(described_, testing::ContainerEq(routed));
}

TEST_F(OpenApiTest, NamesThePathParametersOfEachPath) {
    for (const Route& route : table_.routes()) {
        std::set<std::string> wanted;
        for (std::size_t at = route.pattern.find('{'); at != std::string::npos;
             at = route.pattern.find('{', at + 1)) {
            wanted.insert(route.pattern.substr(at + 1, route.pattern.find('}', at) - at - 1));
        }
        EXPECT_EQ(path_parameters_[route.pattern], wanted) << route.pattern;
    }
}

}  // namespace
}  // namespace ublkd::api
