#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/model/json_view.h"

namespace moelora {

// What family files write where a config decides: sizes, layers, and values of named functions.

// The integers of a config by the names that a family file gives them: "hidden", "heads".
using Values = std::map<std::string, int64_t, std::less<>>;

// A size or a flag as a family file writes it: products of names and integers, added or taken away,
// where a factor may also divide ("hidden / heads"), exactly or not at all.
//   "2 * heads * head_dim"      "qk_nope + qk_rope"      "hidden / heads"      "layers - kv_shared"
class Dimension {
 public:
  Dimension() = default;  // zero
  explicit Dimension(int64_t constant);

  // Throws Error at `where` when `text` is not such an expression.
  static Dimension parse(std::string_view text, const std::string& where);
  static Dimension parse(const JsonView& json);  // or an integer

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
  struct Product {
    std::vector<Factor> factors;
    bool is_negative = false;  // taken away
  };
  friend class DimensionParser;

  std::string text_ = "0";
  std::vector<Product> sum_;
};

// What a config value is when its key is absent (or says "auto") and no sum of products gives it.
// A family file names one with {"function": NAME}; null for an unknown name.
struct ValueFunction {
  std::string_view name;
  std::vector<std::string> needs;  // the values that it reads
  int64_t (*value)(const Values& values);
};
const ValueFunction* find_value_function(std::string_view name);

// A config key, looked up wherever this family keeps its keys; nullopt when absent or null. The
// key "" is the config itself.
using FindKey = std::function<std::optional<JsonView>(const std::string& key)>;

// Which layers have something ("moe", "attention"), as a family file writes it:
//   "all"
//   {"from": N, "to": N, "every": N, "first": N, "list": KEY, "except": KEY, "pattern": KEY,
//    "values": [...], "if": N}   all that hold; "pattern" has one entry (or character) a layer
//   {"only": [0, 2]}   these, in a file of one model
//   [ ... ]   the first of these whose KEY the config has
// "from" and "to" are inclusive, a negative "to" is the last layer; "every" N picks layers
// first, first + N, ..., where `first` is N - 1 unless given. N are dimensions. With "longer" lists
// and patterns go on behind the model's layers; "base" is what lists call the first one. Where "if"
// is zero, none.
class LayerChoice {
 public:
  static LayerChoice parse(const JsonView& json);

  // One entry per layer. Throws Error at the config when none of the alternatives applies or a
  // list names layers that are not there; at `family` when a dimension cannot be evaluated.
  std::vector<bool> layers(int64_t count, const Values& values, const FindKey& config,
                           const std::string& family) const;

  std::vector<std::string> value_names() const;

 private:
  struct Rule {
    std::optional<Dimension> from, to, every, first, only_if;
    std::string list, except, pattern;
    std::vector<std::string> values;
    std::optional<std::vector<int64_t>> only;  // the layers themselves
    bool longer = false;
    int64_t base = 0;  // what lists call the first layer

    const std::string& key() const { return pattern.empty() ? list : pattern; }  // "": always
  };
  static Rule parse_rule(const JsonView& json);

  std::vector<Rule> rules_;
};

}  // namespace moelora
