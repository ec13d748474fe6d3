#include "tests/engine/sglang_faults.h"

#include <map>

#include "lib/engine/sglang/causes.h"

namespace moelora::test {
namespace {

namespace cause = sglang::cause;

// By name, or by family and name.
const std::map<std::string, SilentFaults>& all_faults() {
  static const std::map<std::string, SilentFaults> kFaults = {
      {"lm_head_saved", {&cause::ignored_tensors}},
      {"lora_bias", {&cause::ignored_tensors}},
      {"hand.down_only", {&cause::one_sided_experts}},
      {"hand.gate_only", {&cause::one_sided_experts}},
      {"hand.gate_up_no_down", {&cause::one_sided_experts}},
      {"hand.flat2d_fused", {&cause::stacked_peft_experts}},
      {"hand.half_shared_down_b_only", {&cause::half_shared_down_b}},
      {"hand.lm_head_b_rows_too_few", {&cause::shape_mismatch}},
      {"hand.lora_bias_o", {&cause::ignored_tensors}},
      {"hand.modules_to_save_lm_head", {&cause::ignored_tensors}},
      {"hand.numbered_down_b_missing_one_expert", {&cause::orphan_factor}},
      {"hand.o_a_too_wide", {&cause::silent_truncation}},
      {"hand.o_b_without_a", {&cause::orphan_factor}},
      {"hand.prefix_bare_layers_no_dot", {&cause::ignored_tensors}},
      {"hand.shared_experts_3d", {&cause::ignored_tensors}},
      {"hand.single_numbered_expert_0", {&cause::missing_experts}},
      {"hand.stacked_one_expert_too_few", {&cause::missing_experts}},
      {"hand.stray_safetensors", {&cause::stray_weight_file}},
      {"hand.v_b_rows_too_many", {&cause::silent_truncation}},
      {"hand.vision_tower_no_layer_id", {&cause::ignored_tensors}},
      {"deepseek_v3/hand.experts_on_dense_layer", {&cause::ignored_tensors}},
      {"glm4_moe/hand.experts_on_dense_layer", {&cause::ignored_tensors}},
      {"qwen3_moe/hand.dense_down_only", {&cause::ignored_tensors}},
      {"qwen3_moe/hand.dense_gate_only", {&cause::ignored_tensors}},
      {"qwen3_moe/hand.dense_gate_up_merged", {&cause::ignored_tensors}},
      {"qwen3_moe/hand.dense_gud", {&cause::ignored_tensors}},
      {"qwen3_moe/hand.dense_layer_and_experts", {&cause::ignored_tensors}},
      {"qwen3_dense/hand.fused_3d", {&cause::ignored_tensors}},
      {"qwen3_dense/hand.shared_outer", {&cause::ignored_tensors}},
      {"qwen3_dense/hand.stacked3d", {&cause::ignored_tensors}},
      {"qwen3_dense_tied/hand.fused_3d", {&cause::ignored_tensors}},
      {"qwen3_dense_tied/hand.shared_outer", {&cause::ignored_tensors}},
      {"qwen3_dense_tied/hand.stacked3d", {&cause::ignored_tensors}},
  };
  return kFaults;
}

}  // namespace

SilentFaults silent_faults(const OracleRecord& record) {
  for (const std::string& key :
       {record.family + "/" + record.text("adapter"), record.text("adapter")}) {
    const auto at = all_faults().find(key);
    if (at != all_faults().end()) return at->second;
  }
  return {};
}

}  // namespace moelora::test
