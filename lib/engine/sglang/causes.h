#pragma once

#include "lib/engine/cause.h"

// The causes of SGLang's plan events.
namespace moelora::sglang::cause {

using namespace moelora::cause;

inline constexpr Cause mixed_shared_outer{"shared-outer and per-expert adapters on one server"};
inline constexpr Cause router_target{"LoRA on the router"};
inline constexpr Cause lone_q_proj{"q_proj without v_proj"};
inline constexpr Cause kv_without_q{"k_proj or v_proj without q_proj"};
inline constexpr Cause half_k_proj{"one factor of k_proj without the other"};
inline constexpr Cause up_without_gate{"up_proj without gate_proj"};
inline constexpr Cause half_mla{"one of q_a_proj and kv_a_proj_with_mqa without the other"};
inline constexpr Cause w_names_in_targets{"a target module that SGLang has no buffer for"};
inline constexpr Cause regex_targets{"target_modules as a regular expression"};
inline constexpr Cause stacked_peft_experts{"experts stacked as PEFT saves target_parameters"};
inline constexpr Cause rslora_ignored{"use_rslora, which SGLang ignores"};
inline constexpr Cause patterns_ignored{"rank_pattern or alpha_pattern, which SGLang ignores"};
inline constexpr Cause extra_becomes_b{
    "a tensor that is not a low-rank factor and is taken for a lora_B"};
inline constexpr Cause shared_outer_flag{
    "shared outer experts on a server without them, or the reverse"};
inline constexpr Cause half_shared{"experts that share only some outer factors"};
inline constexpr Cause virtual_experts_up{
    "virtual experts that use the lora_A of gate_proj for up_proj"};
inline constexpr Cause gpt_oss_split_a{
    "GPT-OSS experts that use the lora_A of gate_proj for up_proj"};
inline constexpr Cause interleaved_b{
    "interleaved rows of gate and up where halves are expected, or the reverse"};
inline constexpr Cause one_sided_experts{"only gate/up or only down of the experts"};
inline constexpr Cause tp_divisibility{"a model that does not split over the ranks"};
inline constexpr Cause rank_over_limit{"a rank above --max-lora-rank"};
inline constexpr Cause split_gdn{"the split names of linear attention"};
inline constexpr Cause dense_buffer_missing{"no buffer for dense layers beside MoE layers"};
inline constexpr Cause server_options{"server options that do not suit the adapter"};
inline constexpr Cause weight_on_input{"router weights applied to the input of the experts"};
inline constexpr Cause silent_truncation{
    "a factor larger than the layer, cut off without a message"};
inline constexpr Cause added_tokens{"added tokens beyond the vocabulary"};
inline constexpr Cause dora{"DoRA"};
inline constexpr Cause undeclared_embeddings{"embeddings that target_modules does not name"};
inline constexpr Cause marlin_limits{"limits of expert LoRA on Marlin kernels"};
inline constexpr Cause virtual_experts_limit{"too many virtual experts"};
inline constexpr Cause half_shared_down_b{
    "a shared lora_B of down without a shared lora_A of gate and up"};
inline constexpr Cause ignored_tensors{"tensors that SGLang reads and drops"};
inline constexpr Cause qwen2_moe_shared_size{
    "a shared expert of another width than the dense layers"};
inline constexpr Cause moe_buffer_missing{"no buffer for the experts"};
inline constexpr Cause backend_without_moe_lora{"a backend without expert LoRA"};
inline constexpr Cause moe_runner_config{"wrapped experts without moe_runner_config"};
inline constexpr Cause lora_runner{"a runner of expert LoRA that does not suit the server or base"};
inline constexpr Cause dp_attention{"LoRA under DP attention"};
inline constexpr Cause numbered_shared_experts{"numbered names of shared experts"};
inline constexpr Cause attention_width{"an attention buffer of another width than the layer"};
inline constexpr Cause replicated_q{"LoRA on queries that every rank decodes whole"};

}  // namespace moelora::sglang::cause
