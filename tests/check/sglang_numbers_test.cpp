// NUM002 and NUM003 against SGLang's oracle: what it serves wrongly is measured, and nothing else.

#include <doctest/doctest.h>

#include <algorithm>
#include <set>
#include <span>
#include <string_view>

#include "tests/check/sglang_deployment.h"
#include "tests/engine/sglang_faults.h"

using namespace moelora;
using namespace moelora::test;

namespace {

// Served with a fault, though every delta that the adapter has is served whole: what it lacks is
// zero.
constexpr std::string_view kWhole[] = {"hand.lm_head_b_rows_too_few",
                                       "hand.single_numbered_expert_0"};

// Served, and what they mean is not known, or is not a delta.
constexpr std::string_view kUnknown[] = {
    "hand.flat2d_fused",
    "hand.lora_bias_o",
    "hand.modules_to_save_lm_head",
    "hand.numbered_down_b_missing_one_expert",
    "hand.o_b_without_a",
    "hand.shared_experts_3d",
    "hand.stacked_one_expert_too_few",
    "hand.up_empty_tensors",
    "lm_head_saved",
    "lora_bias",
};

// Expert tensors on a model without experts are not an adapter of it.
constexpr std::string_view kUnknownOnDense[] = {"hand.fused_3d", "hand.shared_outer",
                                                "hand.stacked3d"};

bool is_in(std::span<const std::string_view> list, const OracleRecord& record) {
  return std::find(list.begin(), list.end(), record.text("adapter")) != list.end();
}

bool is_unknown(const OracleRecord& record) {
  return is_in(kUnknown, record) ||
         (record.family.starts_with("qwen3_dense") && is_in(kUnknownOnDense, record));
}

// An up_proj that is not there has a lora_A of zeros.
bool mixes_absent_up(const OracleRecord& record) {
  return record.family == "gpt_oss" && record.text("adapter") == "hand.gate_down_no_up_shared";
}

bool is_wrong(const OracleRecord& record) {
  if (is_unknown(record)) return false;
  if (has_split_a(record) || mixes_absent_up(record)) return true;
  return (!silent_faults(record).empty() && !is_in(kWhole, record)) ||
         record.text("adapter") == "hand.f16_overflow";
}

}  // namespace

TEST_CASE(
    "NUM002 measures exactly what SGLang serves wrongly, and NUM003 says what it cannot measure") {
  size_t served = 0, wrong = 0;
  for (const OracleRecord& record : sglang_records()) {
    if (record.text("adapter").empty() || !record.text("stage").empty() ||
        record.text("setting").ends_with(".1"))
      continue;
    CAPTURE(record.label());
    std::set<std::string_view> rules;
    for (const Finding& finding : check_for_sglang(record).findings) {
      if (!finding.rule->id.starts_with("NUM")) continue;
      CAPTURE(finding.message);
      CHECK_FALSE(finding.unchecked);
      rules.insert(finding.rule->id);
    }
    CHECK(rules.contains("NUM002") == is_wrong(record));
    CHECK(rules.contains("NUM003") == is_unknown(record));
    ++served;
    wrong += is_wrong(record) ? 1 : 0;
  }
  CHECK(served > 1000);
  CHECK(wrong > 150);
}
