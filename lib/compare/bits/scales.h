#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/base/regex/path_pattern.h"
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
// alpha_pattern, where the first key in the file's order wins.
class Scales {
 public:
  // Throws Error at `where` for a field of another type, and for r or lora_alpha missing.
  Scales(const Json& config, const std::string& where);

  // The first of `paths` that a pattern names decides; else r and lora_alpha.
  Scale of(const std::vector<std::string>& paths) const;

  bool has_patterns() const { return !rank_.empty() || !alpha_.empty(); }
  const Scale& standard() const { return standard_; }

 private:
  Scale standard_;
  PatternTable<double> rank_, alpha_;
};

}  // namespace moelora::packed
