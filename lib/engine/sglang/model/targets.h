#pragma once

#include <string_view>
#include <vector>

#include "lib/engine/sglang/features.h"
#include "lib/engine/sglang/model/model_class.h"
#include "lib/engine/python_text.h"

namespace moelora::sglang {

// A name of target_modules as SGLang normalises it: its last component, with the parts of a fused
// module named after the whole ("self_attn.q_proj" is qkv_proj). w1, w2, w3 stay as they are.
std::string normalised_target(std::string_view name, const Features& features);

// The modules "all" and "all-linear" stand for: those of the class that the pool can hold.
NameSet detect_targets(const ModelClass& model, const Features& features);

// Finds the target a name belongs to: the longest that occurs anywhere in it.
class TargetMatcher {
 public:
  TargetMatcher() = default;
  explicit TargetMatcher(const NameSet& targets);

  // Index in targets(), -1 for none.
  int find(std::string_view name) const;
  const std::vector<std::string>& targets() const { return targets_; }

 private:
  std::vector<std::string> targets_;  // longest first
};

}  // namespace moelora::sglang
