#include "cli/shorthand.h"

#include <fmt/format.h>

#include <cctype>
#include <string_view>

#include "cli/command.h"

namespace ublkd::cli {
namespace {

using api::Json;

constexpr unsigned kMaxLevels = 32;

bool of_a_key(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("-_.:/").find(c) != std::string_view::npos;
}

class Shorthand {
  public:
    Shorthand(const std::string& option, const std::string& text) : option_(option), text_(text) {}

    Outcome<Json> read() {
        CLI_TRY_ASSIGN(Json made, pairs('\0', 0));
        if (at_ < text_.size()) return wrong("nothing more");
        return made;
    }

  private:
    char here() const { return at_ < text_.size() ? text_[at_] : '\0'; }
    std::unexpected<Failure> wrong(const std::string& wanted) const {
        return usage(fmt::format(
            "{}: '{}' is neither KEY=VALUE,... as aws takes it nor JSON: {} is expected "
            "at character {}",
            option_, text_, wanted, at_ + 1));
    }

    /// KEY=VALUE,KEY=VALUE up to `end`.
    Outcome<Json> pairs(char end, unsigned level) {
        Json made = Json::object();
        if (level > kMaxLevels) return wrong("a structure of fewer levels");
        while (made.members().empty() || here() == ',') {
            if (!made.members().empty()) ++at_;
            CLI_TRY_ASSIGN(const auto key, read_key());
            if (!made[key].is_null()) return wrong("a key that is not there yet");
            CLI_TRY_ASSIGN(Json value, read_value(end, level));
            if (more_of_a_list()) value = Json(Json::Array{std::move(value)});
            while (more_of_a_list()) {
                ++at_;
                CLI_TRY_ASSIGN(Json next, read_value(end, level));
                value.push(std::move(next));
            }
            made.set(key, std::move(value));
        }
        return made;
    }

    Outcome<std::string> read_key() {
        std::string key;
        while (of_a_key(here())) key += text_[at_++];
        if (key.empty() || here() != '=') return wrong("KEY=");
        ++at_;
        return key;
    }

    /// A comma with no KEY= behind it: "Values=a,b".
    bool more_of_a_list() const {
        if (here() != ',') return false;
        std::size_t at = at_ + 1;
        while (at < text_.size() && of_a_key(text_[at])) ++at;
        return at == text_.size() || text_[at] != '=';
    }

    Outcome<Json> read_value(char end, unsigned level) {
        switch (here()) {
            case '[':
                return list(level + 1);
            case '{': {
                ++at_;
                CLI_TRY_ASSIGN(Json made, pairs('}', level + 1));
                if (here() != '}') return wrong("'}'");
                ++at_;
                return made;
            }
            case '\'':
            case '"':
                return quoted();
            default:
                break;
        }
        std::string text;
        for (; at_ < text_.size() && here() != ',' && (end == '\0' || here() != end); ++at_) {
            if (here() == '\\' && at_ + 1 < text_.size()) ++at_;
            text += here();
        }
        return Json(text);
    }

    Outcome<Json> list(unsigned level) {
        Json made = Json::array();
        if (level > kMaxLevels) return wrong("a list of fewer levels");
        do {
            ++at_;
            if (here() == ']' && made.items().empty()) break;
            CLI_TRY_ASSIGN(Json item, read_value(']', level));
            made.push(std::move(item));
        } while (here() == ',');
        if (here() != ']') return wrong("']'");
        ++at_;
        return made;
    }

    Outcome<Json> quoted() {
        const char quote = text_[at_++];
        std::string text;
        for (; at_ < text_.size() && here() != quote; ++at_) {
            if (here() == '\\' && at_ + 1 < text_.size()) ++at_;
            text += here();
        }
        if (at_ == text_.size()) return wrong(std::string(1, quote));
        ++at_;
        return Json(text);
    }

    const std::string& option_;
    const std::string& text_;
    std::size_t at_ = 0;
};

}  // namespace

Outcome<std::vector<Json>> parse_structures(const std::string& option, const std::string& word) {
    if (!word.starts_with('[') && !word.starts_with('{')) {
        CLI_TRY_ASSIGN(Json made, Shorthand(option, word).read());
        return std::vector{std::move(made)};
    }
    std::string error;
    const auto json = Json::parse(word, &error);
    if (!json) return usage(fmt::format("{}: '{}' is not JSON: {}", option, word, error));
    std::vector<Json> made = json->is_array() ? json->items() : std::vector{*json};
    for (const Json& item : made) {
        if (!item.is_object())
            return usage(fmt::format("{}: '{}' is no list of objects", option, word));
    }
    return made;
}

}  // namespace ublkd::cli
