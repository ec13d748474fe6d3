#pragma once

#include <fmt/core.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/io/json_value.h"

namespace moelora {

// Typed access to one config file; every mismatch names line, key, found and expected.
class ConfigReader {
 public:
  ConfigReader(const Json& json, const std::string& where) : json_(json), where_(where) {}

  // Null where the key is not there, or is null.
  const Json* get(std::string_view key) const {
    const Json* value = json_.find(key);
    return value == nullptr || value->is(Json::Kind::null) ? nullptr : value;
  }

  const Json* get(std::string_view key, Json::Kind kind, std::string_view expected) const {
    const Json* value = get(key);
    if (value != nullptr && !value->is(kind)) mistyped(key, *value, expected);
    return value;
  }

  const Json& required(std::string_view key) const {
    if (const Json* value = get(key)) return *value;
    throw Error(in_file(where_), fmt::format("\"{}\" is missing", key),
                fmt::format("add \"{}\" as the trainer used it", key));
  }

  bool boolean(std::string_view key) const {
    const Json* value = get(key, Json::Kind::boolean, "true or false");
    return value != nullptr && value->as_bool();
  }

  std::string string(std::string_view key) const {
    const Json* value = get(key, Json::Kind::string, "a string");
    return value != nullptr ? value->as_string() : "";
  }

  std::vector<std::string> strings(std::string_view key) const {
    std::vector<std::string> out;
    if (const Json* value = get(key, Json::Kind::array, "an array of strings"))
      for (const Json& item : value->items()) {
        if (!item.is(Json::Kind::string)) mistyped(key, item, "a string");
        out.push_back(item.as_string());
      }
    return out;
  }

  int64_t positive_int(std::string_view key, const Json& value) const {
    if (!value.is(Json::Kind::integer)) mistyped(key, value, "an integer");
    if (value.as_int() <= 0)
      throw Error(place_of(value, where_),
                  fmt::format("\"{}\" is {}, expected a positive integer", key, value.as_int()));
    return value.as_int();
  }

  double number(std::string_view key, const Json& value) const {
    if (!value.is_number()) mistyped(key, value, "a number");
    return value.as_double();
  }

  const Json::Members& pattern(std::string_view key) const {
    static const Json::Members kNone;
    const Json* value = get(key, Json::Kind::object, "an object");
    return value != nullptr ? value->members() : kNone;
  }

  [[noreturn]] void mistyped(std::string_view key, const Json& value,
                             std::string_view expected) const {
    throw Error(place_of(value, where_),
                fmt::format("\"{}\" is {}, expected {}", key, value.kind_name(), expected));
  }

  const std::string& where() const { return where_; }

 private:
  const Json& json_;
  const std::string& where_;
};

}  // namespace moelora
