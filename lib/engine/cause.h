#pragma once

#include <string_view>

namespace moelora {

// Why a server does something else with an adapter than the adapter means. A cause is its address:
// plan events name one, and the rule (lib/check/rules) that explains it points at it. Each engine
// declares its own in its folder's causes.h, in the order of their rules.
struct Cause {
  std::string_view words;  // what is so, for people: "q_proj without v_proj"
};

// What any engine may meet, explained by rules of no engine.
namespace cause {

inline constexpr Cause missing_field{
    "a field of adapter_config.json that is missing or of another type"};
inline constexpr Cause rank_mismatch{"a factor of another rank than r"};
inline constexpr Cause config_without_tensors{"target modules and tensors that do not agree"};
inline constexpr Cause no_weights{"no weights file, or one without a tensor"};
inline constexpr Cause stray_weight_file{"a second weights file beside the adapter's"};
inline constexpr Cause orphan_factor{"one factor of a pair without the other"};
inline constexpr Cause mixed_layouts{"routed experts in two layouts"};
inline constexpr Cause unreadable_adapter{"no adapter to read"};
inline constexpr Cause no_such_module{"a module that the base model does not have"};
inline constexpr Cause shape_mismatch{"a factor that does not fit the base model's module"};
inline constexpr Cause layer_out_of_range{"a layer that the base model does not have"};
inline constexpr Cause expert_out_of_range{"an expert that the base model does not have"};
inline constexpr Cause missing_experts{"experts without factors"};
inline constexpr Cause experts_on_dense_layer{"routed experts on a layer without experts"};
inline constexpr Cause quantised_experts{"expert LoRA on quantized experts"};

}  // namespace cause
}  // namespace moelora
