#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/base/error.h"
#include "lib/io/json.h"

namespace moelora {

// A JSON value together with its file and its path in it ("/experts/hub/axes"), for documents that
// people write by hand. Whatever is missing or of the wrong kind is an Error at FILE:LINE:COLUMN
// that starts with the path. Refers to the Json it was made of.
class JsonView {
 public:
  JsonView(const Json& json, std::string file, std::string path = {});

  const Json& json() const { return *json_; }

  JsonView at(std::string_view key) const;                   // Error when absent
  std::optional<JsonView> find(std::string_view key) const;  // absent and null are the same
  std::vector<JsonView> items() const;                       // of an array
  std::vector<std::pair<std::string, JsonView>> members() const;

  const std::string& string() const;
  int64_t integer() const;
  bool boolean() const;
  std::vector<std::string> strings() const;
  std::vector<std::string> one_or_more_strings() const;  // "a" is read as ["a"]

  // Of a member that may be absent: "", false, nothing then.
  std::string string_or_empty(std::string_view key) const;
  bool is_true(std::string_view key) const;
  std::vector<std::string> strings_or_none(std::string_view key) const;
  std::vector<std::pair<std::string, std::string>> string_members(std::string_view key) const;

  // The index of this string in `choices`; Error that lists them.
  size_t one_of(std::initializer_list<std::string_view> choices) const;

  // Refuses every key of this object but these.
  void allow_only(std::initializer_list<std::string_view> keys) const;

  Location place() const;  // without a line for a value that was never in a file
  std::string where() const { return place().text(); }
  [[noreturn]] void fail(const std::string& what, const std::string& hint = {}) const;
  [[noreturn]] void fail_kind(std::string_view expected) const;

 private:
  JsonView child(const Json& json, std::string_view step) const;
  const Json& require(Json::Kind kind, std::string_view expected) const;

  const Json* json_;
  std::string file_, path_;
};

}  // namespace moelora
