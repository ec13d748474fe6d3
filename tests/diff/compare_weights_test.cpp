#include <doctest/doctest.h>

#include <string>

#include "lib/base/error.h"
#include "lib/diff/weight_comparison.h"

using namespace moelora;

namespace {

const std::string kData = MOELORA_TEST_DATA;

std::string golden(const std::string& family, const std::string& name) {
  return kData + "/" + family + "/" + name;
}

CompareWeightsOptions with_base(const std::string& family) {
  CompareWeightsOptions out;
  out.base = golden(family, "base");
  return out;
}

}  // namespace

TEST_CASE("the same adapter in another layout is the same, and identical where factors are kept") {
  const WeightComparison same =
      compare_weights(golden("qwen3_moe", "peft_params"),
                      golden("qwen3_moe", "peft_params_swapped_roles"), with_base("qwen3_moe"));
  CHECK(same.same());
  CHECK(!same.same_up_to);
  const WeightComparison itself = compare_weights(
      golden("mixtral", "per_expert"), golden("mixtral", "per_expert"), with_base("mixtral"));
  CHECK(itself.same());
  for (const Distance& d : itself.diff.pairs) CHECK(d.identical);
}

TEST_CASE("a place on one side only, and another shape, are differences") {
  const WeightComparison fewer = compare_weights(
      golden("gpt_oss", "peft_params"), golden("gpt_oss", "attention_only"), with_base("gpt_oss"));
  CHECK(!fewer.same());
  CHECK(fewer.diff.only_a.size() == 24);
  CHECK(fewer.diff.only_b.empty());
}

TEST_CASE("nothing in common is an error, never the same") {
  CHECK_THROWS_AS(compare_weights(golden("gpt_oss", "peft_params_down_only"),
                                  golden("gpt_oss", "attention_only"), with_base("gpt_oss")),
                  Error);
}
