#pragma once

#include "lib/engine/cause.h"

// The causes of PEFT's plan events, in the order of their rules.
namespace moelora::peft::cause {

using namespace moelora::cause;

inline constexpr Cause other_roles{"stacked pairs with lora_A on the other side"};
inline constexpr Cause unread_name{"a tensor name that PEFT does not read"};
inline constexpr Cause wrapper_limits{"what PEFT refuses for target_parameters"};
inline constexpr Cause targets_taken{"targets that PEFT turns into those of the routed experts"};
inline constexpr Cause family_not_mapped{"numbered experts that PEFT does not convert"};
inline constexpr Cause half_of_gate_up{"one half of gate and up"};
inline constexpr Cause other_scale{"a scale that PEFT works out anew"};
inline constexpr Cause doubled_rank{"a rank of gate_up_proj that PEFT doubles"};
inline constexpr Cause nothing_targeted{"targets that name nothing in the model"};
inline constexpr Cause module_not_supported{"a target that PEFT has no LoRA layer for"};
inline constexpr Cause size_mismatch{"a tensor of another size than PEFT's"};
inline constexpr Cause other_b_order{"a stacked lora_B whose columns PEFT reads in another order"};
inline constexpr Cause undeclared{"tensors of modules that the config does not target"};

}  // namespace moelora::peft::cause
