#include "lib/adapter/config/config_reader.h"

#include <fmt/core.h>

#include "lib/base/error.h"
#include "lib/base/utf8.h"

namespace moelora {

const Json* ConfigReader::get(std::string_view key) const {
  const Json* value = json_.find(key);
  return value == nullptr || value->is(Json::Kind::null) ? nullptr : value;
}

const Json* ConfigReader::get(std::string_view key, Json::Kind kind,
                              std::string_view expected) const {
  const Json* value = get(key);
  if (value != nullptr && !value->is(kind)) mistyped(key, *value, expected);
  return value;
}

const Json& ConfigReader::required(std::string_view key) const {
  if (const Json* value = get(key)) return *value;
  throw Error(in_file(where_), fmt::format("\"{}\" is missing", key),
              fmt::format("add \"{}\" as the trainer used it", key));
}

bool ConfigReader::boolean(std::string_view key) const {
  const Json* value = get(key, Json::Kind::boolean, "true or false");
  return value != nullptr && value->as_bool();
}

std::string ConfigReader::string(std::string_view key) const {
  const Json* value = get(key, Json::Kind::string, "a string");
  return value != nullptr ? value->as_string() : "";
}

std::vector<std::string> ConfigReader::strings(std::string_view key) const {
  std::vector<std::string> out;
  if (const Json* value = get(key, Json::Kind::array, "an array of strings"))
    for (const Json& item : value->items()) {
      if (!item.is(Json::Kind::string)) mistyped(key, item, "a string");
      out.push_back(item.as_string());
    }
  return out;
}

int64_t ConfigReader::positive_int(std::string_view key, const Json& value) const {
  if (!value.is(Json::Kind::integer)) mistyped(key, value, "an integer");
  if (value.as_int() <= 0)
    throw Error(place_of(value, where_),
                fmt::format("\"{}\" is {}, expected a positive integer", key, value.as_int()));
  return value.as_int();
}

double ConfigReader::number(std::string_view key, const Json& value) const {
  if (!value.is_number()) mistyped(key, value, "a number");
  return value.as_double();
}

const Json::Members& ConfigReader::pattern(std::string_view key) const {
  static const Json::Members kNone;
  const Json* value = get(key, Json::Kind::object, "an object");
  return value != nullptr ? value->members() : kNone;
}

void ConfigReader::mistyped(std::string_view key, const Json& value,
                            std::string_view expected) const {
  throw Error(place_of(value, where_),
              fmt::format("\"{}\" is {}, expected {}", key, value.kind_name(), expected));
}

}  // namespace moelora
