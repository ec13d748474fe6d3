#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "lib/base/error.h"

namespace moelora {

// A JSON value that remembers the order of its keys and where it stood in its file, so that a
// config can be written back in place and a finding can point at a line. Numbers keep the text
// they were written with.
class Json {
 public:
  enum class Kind : uint8_t { null, boolean, integer, real, string, array, object };
  using Members = std::vector<std::pair<std::string, Json>>;

  Json() = default;  // null
  Json(bool value);
  Json(int value) : Json(static_cast<int64_t>(value)) {}
  Json(int64_t value);
  Json(double value);  // written as Python's repr writes it: 8.0, 1e-05
  Json(const char* value) : Json(std::string(value)) {}
  Json(std::string value);
  Json(std::string_view value) : Json(std::string(value)) {}

  // Compiled once in the source file rather than in every file that uses it.
  Json(const Json&);
  Json(Json&&) noexcept;
  Json& operator=(const Json&);
  Json& operator=(Json&&) noexcept;
  ~Json();

  static Json array(std::vector<Json> items = {});
  static Json object(Members members = {});
  static Json strings(const std::vector<std::string>& items);

  Kind kind() const { return static_cast<Kind>(value_.index()); }
  bool is(Kind kind) const { return this->kind() == kind; }
  bool is_number() const { return is(Kind::integer) || is(Kind::real); }
  std::string_view kind_name() const;  // "a string", "an array" ... for messages

  // REQUIRE the kind; as_double takes integers too.
  bool as_bool() const;
  int64_t as_int() const;
  double as_double() const;
  const std::string& as_string() const;
  const std::vector<Json>& items() const;
  const Members& members() const;
  std::string number_text() const;  // as it was written

  const Json* find(std::string_view key) const;  // null unless this is an object that has it
  Json* find(std::string_view key);
  void set(std::string_view key, Json value);  // replaces in place, else appends
  void erase(std::string_view key);

  int line() const { return line_; }  // 1-based; 0 when not read from a file
  int column() const { return column_; }

  // As Python's json.dumps(value, indent=2) writes it (no trailing newline), non-ASCII raw where it
  // is seen (is_seen); bytes of no UTF-8 are the text \xNN. The result is UTF-8 in any case.
  // indent < 0: on one line with ", " and ": ".
  std::string dump(int indent = 2) const;

  // Same kind and value; numbers by value, objects regardless of key order.
  friend bool operator==(const Json& a, const Json& b);

 private:
  friend class JsonBuilder;
  // As it was written, where it is not as dump() would write the number itself.
  using Written = std::shared_ptr<const std::string>;
  struct Integer {
    int64_t value;
    Written written;
  };
  struct Real {
    double value;
    Written written;
  };
  // In the order of Kind. Files of log-probabilities have millions of them.
  std::variant<std::monostate, bool, Integer, Real, std::string, std::vector<Json>, Members> value_;
  int line_ = 0, column_ = 0;
};

// Members sorted by key, those of the same key in their order.
std::vector<const Json::Members::value_type*> by_key(const Json::Members& members);

// Where a value stood in the file it was read from.
inline Location place_of(const Json& value, std::string file) {
  return {std::move(file), value.line(), value.column(), {}, {}};
}

// A text as a JSON string, in quotes, as dump() writes it.
std::string json_string(std::string_view text);

}  // namespace moelora
