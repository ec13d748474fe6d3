#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lib/model/dimension.h"
#include "lib/model/json_view.h"

namespace moelora {

// A config key, looked up wherever this family keeps its keys; nullopt when absent or null. The
// key "" is the config itself.
using FindKey = std::function<std::optional<JsonView>(const std::string& key)>;

// Which layers have something ("moe", "attention"), as a family file writes it:
//   "all"
//   {"from": N, "to": N, "every": N, "first": N, "list": KEY, "except": KEY}   all that hold
//   {"pattern": KEY, "values": [...]}   KEY has one entry (or character) a layer
//   [ ... ]   the first of these whose KEY the config has
// "from" and "to" are inclusive, a negative "to" is the last layer; "every" N picks layers
// first, first + N, ..., where `first` is N - 1 unless given. N are dimensions.
class LayerChoice {
 public:
  static LayerChoice parse(const JsonView& json);
  static LayerChoice all() { return LayerChoice(); }

  // One entry a layer. Throws Error at the config when none of the alternatives applies or a
  // list names layers that are not there; at `family` when a dimension cannot be evaluated.
  std::vector<bool> layers(int64_t count, const Values& values, const FindKey& config,
                           const std::string& family) const;

  std::vector<std::string> value_names() const;

 private:
  struct Rule {
    std::optional<Dimension> from, to, every, first;
    std::string list, except, pattern;
    std::vector<std::string> values;
  };
  static Rule parse_rule(const JsonView& json);
  static bool applies(const Rule& rule, const FindKey& config);

  std::vector<Rule> rules_ = {Rule{}};
};

}  // namespace moelora
