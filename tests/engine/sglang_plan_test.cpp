// What a plan tells of the oracle's adapters: the server's own words where it stops, and a cause
// for every tensor that is served otherwise than the adapter means.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <map>
#include <set>

#include "lib/engine/engine.h"
#include "tests/engine/served_from_folder.h"
#include "tests/engine/sglang_compare.h"

using namespace moelora;
using namespace moelora::test;

namespace {

using Causes = std::set<std::string>;

// What is wrong with adapters that the server takes without a word; by name, or by family and name.
const std::map<std::string, Causes>& silent_faults() {
  static const std::map<std::string, Causes> kFaults = {
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

Causes faults_of(const OracleRecord& record) {
  for (const std::string& key :
       {record.family + "/" + record.text("adapter"), record.text("adapter")}) {
    const auto at = silent_faults().find(key);
    if (at != silent_faults().end()) return at->second;
  }
  return {};
}

ServerPlan plan_of(const OracleRecord& record) {
  const std::string adapter = record.text("adapter");
  const OracleBase& base = sglang_base(record.family, adapter.ends_with("_q40") ? "q40" : "");
  const ServedAdapter served = served_from_folder(sglang_folder(record.family, adapter));
  const EngineChoice choice = parse_engine("sglang@0.5.18");
  return choice.engine->plan(
      {{&served, 1}, base.spec, base.config, ServerOptions(), choice.version});
}

}  // namespace

TEST_CASE("a plan quotes SGLang where it stops, and names a cause for all it does silently") {
  for (const OracleRecord& record : sglang_records()) {
    if (record.text("adapter").empty() || record.text("setting") != "r") continue;
    CAPTURE(record.label());
    const ServerPlan plan = plan_of(record);
    REQUIRE(plan.adapters.size() == 1);
    const PlanEvent* refusal = plan.adapters[0].first_refusal();
    CHECK((refusal != nullptr) == !record.text("stage").empty());
    Causes causes;
    for (const PlanEvent& event : plan.adapters[0].events) {
      CHECK(!event.detail.empty());
      // Whether the two A are equal is for a rule that sees values.
      if (event.cause != "gpt-oss-split-a") causes.insert(std::string(event.cause));
    }
    if (refusal != nullptr)
      CHECK(refusal->refusal->stage == record.text("stage"));
    else
      CHECK(causes == faults_of(record));
  }
}
