#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/io/json_value.h"

namespace moelora {

// Typed access to one config file; every mismatch names line, key, found and expected.
class ConfigReader {
 public:
  ConfigReader(const Json& json, const std::string& where) : json_(json), where_(where) {}

  // Null where the key is not there, or is null.
  const Json* get(std::string_view key) const;
  // ... of this kind, which is `expected` in words.
  const Json* get(std::string_view key, Json::Kind kind, std::string_view expected) const;
  const Json& required(std::string_view key) const;

  // False, "", none where the key is not there.
  bool boolean(std::string_view key) const;
  std::string string(std::string_view key) const;
  std::vector<std::string> strings(std::string_view key) const;
  const Json::Members& pattern(std::string_view key) const;

  int64_t positive_int(std::string_view key, const Json& value) const;
  double number(std::string_view key, const Json& value) const;

  [[noreturn]] void mistyped(std::string_view key, const Json& value,
                             std::string_view expected) const;

  const std::string& where() const { return where_; }

 private:
  const Json& json_;
  const std::string& where_;
};

}  // namespace moelora
