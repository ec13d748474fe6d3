#include "tests/engine/sglang_faults.h"

#include <map>

namespace moelora::test {
namespace {

// By name, or by family and name.
const std::map<std::string, SilentFaults>& all_faults() {
  static const std::map<std::string, SilentFaults> kFaults = {
      {"lm_head_saved", {"ignored-tensors"}},
      {"lora_bias", {"ignored-tensors"}},
      {"hand.down_only", {"one-sided-experts"}},
      {"hand.gate_only", {"one-sided-experts"}},
      {"hand.gate_up_no_down", {"one-sided-experts"}},
      {"hand.flat2d_fused", {"stacked-peft-experts"}},
      {"hand.half_shared_down_b_only", {"half-shared-down-b"}},
      {"hand.lm_head_b_rows_too_few", {"shape-mismatch"}},
      {"hand.lora_bias_o", {"ignored-tensors"}},
      {"hand.modules_to_save_lm_head", {"ignored-tensors"}},
      {"hand.numbered_down_b_missing_one_expert", {"orphan-factor"}},
      {"hand.o_a_too_wide", {"silent-truncation"}},
      {"hand.o_b_without_a", {"orphan-factor"}},
      {"hand.prefix_bare_layers_no_dot", {"ignored-tensors"}},
      {"hand.shared_experts_3d", {"ignored-tensors"}},
      {"hand.single_numbered_expert_0", {"missing-experts"}},
      {"hand.stacked_one_expert_too_few", {"missing-experts"}},
      {"hand.stray_safetensors", {"stray-weight-file"}},
      {"hand.v_b_rows_too_many", {"silent-truncation"}},
      {"hand.vision_tower_no_layer_id", {"ignored-tensors"}},
      {"deepseek_v3/hand.experts_on_dense_layer", {"ignored-tensors"}},
      {"glm4_moe/hand.experts_on_dense_layer", {"ignored-tensors"}},
      {"qwen3_moe/hand.dense_down_only", {"ignored-tensors"}},
      {"qwen3_moe/hand.dense_gate_only", {"ignored-tensors"}},
      {"qwen3_moe/hand.dense_gate_up_merged", {"ignored-tensors"}},
      {"qwen3_moe/hand.dense_gud", {"ignored-tensors"}},
      {"qwen3_moe/hand.dense_layer_and_experts", {"ignored-tensors"}},
      {"qwen3_dense/hand.fused_3d", {"ignored-tensors"}},
      {"qwen3_dense/hand.shared_outer", {"ignored-tensors"}},
      {"qwen3_dense/hand.stacked3d", {"ignored-tensors"}},
      {"qwen3_dense_tied/hand.fused_3d", {"ignored-tensors"}},
      {"qwen3_dense_tied/hand.shared_outer", {"ignored-tensors"}},
      {"qwen3_dense_tied/hand.stacked3d", {"ignored-tensors"}},
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
