#include "tests/unit/api/openapi.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <string_view>

namespace ublkd::api {
namespace {

/// What follows `key` up to a comma or a bracket.
std::string value_after(const std::string& line, std::string_view key) {
    const auto at = line.find(key);
    if (at == std::string::npos) return "";
    const auto value = line.substr(at + key.size());
    return value.substr(0, value.find_first_of(",}]"));
}

/// "[a, b]" after `key`.
std::vector<std::string> list_after(const std::string& line, std::string_view key) {
    const auto at = line.find(key);
    if (at == std::string::npos) return {};
    const auto begin = line.find('[', at) + 1;
    std::vector<std::string> found;
    std::string word;
    for (const char c : line.substr(begin, line.find(']', begin) - begin) + ",") {
        if (c == ',')
            found.push_back(std::exchange(word, ""));
        else if (c != ' ')
            word += c;
    }
    return found;
}

std::string object_after(const std::string& line) {
    const std::string reference = value_after(line, "'#/components/schemas/");
    return reference.substr(0, reference.find('\''));
}

std::optional<std::uint64_t> number_after(const std::string& line, std::string_view key) {
    const std::string text = value_after(line, key);
    return text.empty() ? std::nullopt : std::optional<std::uint64_t>(std::stoull(text));
}

class Reader {
  public:
    OpenApi read() {
        std::ifstream file(UBLKD_SOURCE_DIR "/docs/openapi.yaml");
        EXPECT_TRUE(file) << "docs/openapi.yaml";
        std::string section;
        for (std::string line; std::getline(file, line);) {
            if (!line.empty() && line[0] != ' ') section = line;
            const auto indent = line.find_first_not_of(' ');
            if (section == "paths:")
                read_path_line(line, indent);
            else if (section == "components:")
                read_object_line(line, indent);
        }
        for (const auto& [path, names] : path_parameters_) {
            for (auto& operation : made_.operations) {
                if (operation.path == path) operation.path_parameters = names;
            }
        }
        return std::move(made_);
    }

  private:
    void read_path_line(const std::string& line, std::size_t indent) {
        if (indent == 2) {
            path_ = line.substr(2, line.size() - 3);
            in_operation_ = false;
        } else if (indent == 4 && line != "    parameters:") {
            DescribedOperation& made = made_.operations.emplace_back();
            made.method = line.substr(4, line.size() - 5);
            for (char& c : made.method)
                c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
            made.path = path_;
            in_operation_ = true;
        } else if (line.find("in: path") != std::string::npos) {
            path_parameters_[path_].insert(value_after(line, "name: "));
        } else if (in_operation_) {
            DescribedOperation& operation = made_.operations.back();
            if (line.find("operationId: ") != std::string::npos)
                operation.operation = value_after(line, "operationId: ");
            if (line.find("in: query") != std::string::npos)
                operation.query[value_after(line, "name: ")] = value_after(line, "type: ");
            if (line.find("requestBody: ") != std::string::npos)
                operation.body = object_after(line);
            if (line.find("'200': ") != std::string::npos) {
                operation.answer = object_after(line);
                operation.plans = line.find("oneOf: ") != std::string::npos;
                const std::string list = value_after(line, "properties: {");
                operation.list = list.substr(0, list.find(':'));
            }
        }
    }

    void read_object_line(const std::string& line, std::size_t indent) {
        if (indent == 4) object_ = line.substr(4, line.size() - 5);
        if (indent == 6 && line.find("required: ") != std::string::npos)
            required_ = list_after(line, "required: ");
        if (indent == 6 && line == "      properties:") {
            made_.objects[object_];
        } else if (indent == 8 && made_.objects.contains(object_)) {
            DescribedField field;
            field.name = line.substr(8, line.find(':') - 8);
            const auto inner = line.find("items: ");
            const std::string own = line.substr(0, inner);
            field.type = value_after(own, "type: ");
            field.items = object_after(own);
            if (inner != std::string::npos) {
                const std::string items = line.substr(inner);
                field.items = object_after(items);
                if (field.items.empty()) field.items = value_after(items, "type: ");
            }
            field.least = number_after(own, "minimum: ");
            field.most = number_after(own, "maximum: ");
            field.choices = list_after(own, "enum: ");
            field.required = std::ranges::find(required_, field.name) != required_.end();
            made_.objects[object_].push_back(std::move(field));
        }
        if (indent == 4) required_.clear();
    }

    OpenApi made_;
    std::string path_, object_;
    bool in_operation_ = false;
    std::vector<std::string> required_;
    std::map<std::string, std::set<std::string>> path_parameters_;
};

}  // namespace

Json least_good_body(const std::string& object) {
    const auto text = [&]() -> const char* {
        if (object == "CreateVolume") return R"({"Size": 1})";
        if (object == "ModifyVolume") return R"({"OnFull": "wait"})";
        if (object == "InitializeCluster") return R"({"Listen": "192.0.2.1:7071"})";
        if (object == "JoinCluster") return R"({"Token": "t", "Listen": "192.0.2.1:7071"})";
        if (object == "RestoreMetadata") return R"({"Path": "/x"})";
        if (object == "RebuildMetadata") return R"({"Paths": ["/x"]})";
        if (object == "AddPool") return R"({"Path": "/x"})";
        if (object == "CreateTags") return R"({"Tags": [{"Key": "k", "Value": "v"}]})";
        if (object == "RequestPermission")
            return R"({"ResourceId": "r", "HostId": "h", "Incarnation": "i"})";
        if (object == "Proposal")
            return R"({"Proposer": "r", "Membership": {"Number": 2, "Primary": "r",
                      "Members": [{"ReplicaId": "r", "HostId": "h", "PoolId": "p"}]}})";
        return "{}";
    }();
    return *Json::parse(text);
}

OpenApi read_openapi() { return Reader().read(); }

}  // namespace ublkd::api
