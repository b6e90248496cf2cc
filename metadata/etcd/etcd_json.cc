#include "metadata/etcd/etcd_json.h"

#include <charconv>

namespace ublkd::metadata {

using api::Json;

std::uint64_t number_of(const Json& json) {
    const std::string text = json.as_string();
    std::uint64_t value = json.u64();
    std::from_chars(text.data(), text.data() + text.size(), value);
    return value;
}

Json range_of(const std::string& key) { return Json::object().set("key", to_base64(key)); }

Json put_key(const std::string& key, const std::string& value) {
    return Json::object().set(
        "request_put", Json::object().set("key", to_base64(key)).set("value", to_base64(value)));
}

Json erase_key(const std::string& key) {
    return Json::object().set("request_delete_range", range_of(key));
}

Json if_unchanged(const std::string& key, std::uint64_t revision) {
    return Json::array().push(Json::object()
                                  .set("key", to_base64(key))
                                  .set("target", "MOD")
                                  .set("result", "EQUAL")
                                  .set("mod_revision", text_of(revision)));
}

std::unexpected<Error> no_etcd() { return fail(Errc::kProtocol, "what answers is no etcd"); }

Result<std::vector<FoundKey>> found_in(const Json& range_answer) {
    std::vector<FoundKey> all;
    for (const Json& json : range_answer["kvs"].items()) {
        auto key = from_base64(json["key"].as_string());
        auto value = from_base64(json["value"].as_string());
        const std::uint64_t revision = number_of(json["mod_revision"]);
        if (!key || !value || revision == 0) return no_etcd();
        all.push_back({std::move(*key), std::move(*value), revision});
    }
    return all;
}

}  // namespace ublkd::metadata
