#include "metadata/value.h"

namespace ublkd::metadata {

Value to_value(const replication::Membership& membership) {
    return replication::encode(membership);
}

bool from_value(const Value& value, std::string& text) {
    const auto* stored = std::get_if<std::string>(&value);
    if (stored != nullptr) text = *stored;
    return stored != nullptr;
}

bool from_value(const Value& value, bool& flag) {
    const auto* stored = std::get_if<std::int64_t>(&value);
    if (stored == nullptr || (*stored != 0 && *stored != 1)) return false;
    flag = *stored == 1;
    return true;
}

bool from_value(const Value& value, Bytes& bytes) {
    const auto* stored = std::get_if<Bytes>(&value);
    if (stored != nullptr) bytes = *stored;
    return stored != nullptr;
}

bool from_value(const Value& value, replication::Membership& membership) {
    const auto* stored = std::get_if<Bytes>(&value);
    if (stored == nullptr) return false;
    auto decoded = replication::decode_membership(*stored);
    if (decoded) membership = std::move(*decoded);
    return decoded.has_value();
}

}  // namespace ublkd::metadata
