#pragma once

#include <map>
#include <string>
#include <vector>

#include "lib/adapter/adapter.h"
#include "lib/base/scale.h"
#include "lib/engine/fit/step.h"

namespace moelora::fit {

// One scale for all: servers multiply every pair by lora_alpha / r of the config and do not read
// rank_pattern or alpha_pattern, SGLang no use_rslora either. What differs goes into lora_B.
extern const FitStep one_scale;

// One rank for all, the largest there is: servers read r of the config only. Zero rows of lora_A
// and zero columns of lora_B change no product. REQUIRES that one_scale has run.
extern const FitStep one_rank;

// How many pairs have which scale.
using ScaleCounts = std::map<double, int64_t>;

// The scale that most pairs have; of equals the largest. Never 0 where another one is there.
double most_common(const ScaleCounts& counts);

// Brings pairs to one scale: what theirs is of it goes into lora_B, and is kept account of. Their
// Scaling is the caller's to set. A factor that only the division of alpha by r made does not
// count.
class ScaleFolder {
 public:
  explicit ScaleFolder(double scale) : scale_(scale) {}

  void fold(const std::string& name, Tensor& b, double value);

  // Expert by expert; a lora_B that experts of different scales share is parted.
  void fold(const std::string& name, ExpertPair& pair, int64_t experts);

  bool any() const { return !factors_.empty(); }

  // "0.5 (exact) in model.layers.0.self_attn.q_proj and 3 more; 1.5 (rounded once) in ...".
  std::string text() const;

 private:
  double scale_;
  Scaler scaler_;
  std::map<double, std::vector<std::string>> factors_;
};

}  // namespace moelora::fit
