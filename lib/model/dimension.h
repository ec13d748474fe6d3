#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace moelora {

// The integers of a config by the names that a family file gives them: "hidden", "heads".
using Values = std::map<std::string, int64_t, std::less<>>;

// A size or a flag as a family file writes it: a sum of products of names and integers, where a
// factor may also divide ("hidden / heads"), exactly or not at all.
//   "2 * heads * head_dim"      "qk_nope + qk_rope"      "hidden / heads"
class Dimension {
 public:
  Dimension() = default;  // zero
  explicit Dimension(int64_t constant);

  // Throws Error at `where` when `text` is no such expression.
  static Dimension parse(std::string_view text, const std::string& where);

  // Throws Error at `where` on an unknown name, a division with a rest or by zero, and overflow.
  int64_t value(const Values& values, const std::string& where) const;

  std::vector<std::string> names() const;
  const std::string& text() const { return text_; }

 private:
  struct Factor {
    std::string name;  // empty: the number
    int64_t number = 1;
    bool divides = false;
  };
  using Product = std::vector<Factor>;
  friend class DimensionParser;

  std::string text_ = "0";
  std::vector<Product> sum_;
};

// What a config value is when its key is absent (or says "auto") and no sum of products tells.
// A family file names one with {"function": NAME}.
bool is_value_function(const std::string& name);

// REQUIRES: is_value_function(name), and `values` has "hidden".
int64_t value_function(const std::string& name, const Values& values);

}  // namespace moelora
