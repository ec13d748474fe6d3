#pragma once

#include "lib/engine/cause.h"

// The causes of vLLM's plan events.
namespace moelora::vllm::cause {

using namespace moelora::cause;

inline constexpr Cause layout_class_mismatch{
    "experts in a layout that the model class does not take"};
inline constexpr Cause gpt_oss_mixed_mode{"GPT-OSS experts in the mixed format"};
inline constexpr Cause fused_names{"a fused name where the class knows only its parts"};
inline constexpr Cause unsupported_name{"a tensor name that vLLM does not accept"};
inline constexpr Cause incomplete_experts{"experts without gate, up or down"};
inline constexpr Cause unequal_ranks{"experts of one layer with different ranks"};
inline constexpr Cause rank_over_limit{"a rank above --max-lora-rank"};
inline constexpr Cause moe_rank_128{"--max-lora-rank above 128 on a model with routed experts"};
inline constexpr Cause patterns_ignored{"rank_pattern or alpha_pattern, which vLLM ignores"};
inline constexpr Cause rslora_experts{"rsLoRA on numbered or shared-outer experts"};
inline constexpr Cause router_target{"LoRA on a router that the class does not wrap"};
inline constexpr Cause embedding_target{"LoRA on embeddings that the class does not take"};
inline constexpr Cause modules_to_save{"whole saved modules"};
inline constexpr Cause dora{"DoRA"};
inline constexpr Cause bias{"trained biases"};
inline constexpr Cause silent_partial_copy{"a factor that is copied only in part"};
inline constexpr Cause b_order_old_engine{
    "a release that reads the columns of a stacked lora_B in another order"};
inline constexpr Cause silent_no_op{"tensors that no module of the model takes"};
inline constexpr Cause fully_sharded_rank{"a rank that the tensor parallel size does not divide"};
inline constexpr Cause ep_options{"expert parallel options that refuse LoRA on experts"};
inline constexpr Cause padded_partition{"a padded partition of an MXFP4 base"};
inline constexpr Cause shared_outer_flag{
    "shared outer experts without the server's switch, or the reverse"};
inline constexpr Cause tensor_loader{"no weights file that vLLM reads"};
inline constexpr Cause tp_hides_shape{"a wrong shape that slicing hides"};
inline constexpr Cause wrong_moe_path{"expert tensors under a path that the class does not have"};
inline constexpr Cause base_layer_alone{"experts.base_layer without experts"};
inline constexpr Cause class_without_lora{"a model class that cannot start with LoRA"};
inline constexpr Cause b_order_declared_other{
    "a declared order of lora_B columns that vLLM does not read"};
inline constexpr Cause half_pair{"one factor of a pair without the other"};
inline constexpr Cause config_refused{"a config that vLLM does not accept"};
inline constexpr Cause shape_refused{"a shape that vLLM does not accept"};
inline constexpr Cause experts_named_twice{
    "experts of a class that vLLM runs by its Transformers backend"};
inline constexpr Cause no_expert_lora{"experts on a release that has no LoRA on them"};
inline constexpr Cause peft_feature{"a feature of PEFT that vLLM refuses"};
inline constexpr Cause option_without_lora{"an option of the server that LoRA excludes"};
inline constexpr Cause tp_divisibility{"a model that does not split over the ranks"};

}  // namespace moelora::vllm::cause
