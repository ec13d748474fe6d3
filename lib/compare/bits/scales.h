#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/compare/bits/pattern_key.h"
#include "lib/io/json.h"

namespace moelora::packed {

// What B·A is multiplied with: alpha / r, or alpha / sqrt(r) with rsLoRA.
struct Scale {
  double alpha = 1;
  int64_t rank = 1;
  bool rslora = false;

  double value() const;
  friend bool operator==(const Scale&, const Scale&) = default;
};

// The scale of every module by adapter_config.json: r, lora_alpha, use_rslora, rank_pattern and
// alpha_pattern, where the first key in the file's order wins. Plain keys are found by hashing, so
// thousands of them cost nothing a module.
class Scales {
 public:
  // Throws Error at `where` for a field of another type, and for r or lora_alpha missing.
  Scales(const Json& config, const std::string& where);

  // The first of `paths` that a pattern names decides; else r and lora_alpha.
  Scale of(const std::vector<std::string>& paths) const;

  bool has_patterns() const { return !rank_.empty() || !alpha_.empty(); }
  const Scale& standard() const { return standard_; }

 private:
  class Table {
   public:
    Table(const Json* patterns, std::string_view key, const std::string& where);
    std::optional<double> find(std::string_view path) const;
    bool empty() const { return plain_.empty() && patterns_.empty(); }

   private:
    struct Entry {
      size_t order;
      double value;
    };
    std::map<std::string, Entry, std::less<>> plain_;
    std::vector<std::pair<PatternKey, Entry>> patterns_;
  };

  Scale standard_;
  Table rank_, alpha_;
};

}  // namespace moelora::packed
