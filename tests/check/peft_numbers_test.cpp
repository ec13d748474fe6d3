// NUM002 for PEFT: what its layers add, worked out from the file's values, is what the adapter
// means where real PEFT loaded it whole, and something else where it lost or scaled any of it.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <random>
#include <set>

#include "lib/check/run_rules.h"
#include "lib/check/specimen.h"
#include "tests/engine/peft_oracle.h"

using namespace moelora;
using namespace moelora::test;

namespace {

// Each stands for others: halves and interleaved rows, [E, in, out] parameters, no gates, w1/w3/w2,
// shared experts, a family that PEFT does not convert, experts of equal sides.
const std::set<std::string> kFamilies = {"glm4_moe",  "gpt_oss",   "nemotron_h",  "mixtral",
                                         "qwen2_moe", "qwen3_moe", "qwen3_moe_sq"};

// What no product of factors shows: nothing is meant, DoRA's magnitudes, biases; what cannot be
// read, so that NUM003 says it was not compared; sizes that are equal with lora_A on either side.
const std::set<std::string> kOthers = {
    "attn_alpha_zero",     "attn_dora",           "attn_bias_lora_only", "numbered_dora",
    "numbered_wrong_rank", "params_gate_up_only", "params_swapped_dg"};

Tensor random(const Shape& shape, std::mt19937& source) {
  std::vector<float> values(static_cast<size_t>(Tensor::zeros(DType::F32, shape).elements()));
  for (float& value : values) value = std::uniform_real_distribution<float>(-1, 1)(source);
  return Tensor::of_f32(shape, values);
}

Subject subject_of(const PeftFamily& family, const std::string& form) {
  const ServedAdapter served = family.adapter(form);
  std::mt19937 source(7);
  Subject out;
  out.given = out.folder = form;
  out.has_config = true;
  out.config = served.config;
  out.main_file = served.files.front().name;
  out.own_files = {out.main_file};
  out.listing = {"adapter_config.json", out.main_file};
  TensorMap tensors;
  for (const TensorHeader& tensor : served.files.front().tensors)
    tensors.emplace(tensor.name, random(tensor.shape, source));
  out.files.push_back({out.main_file, std::move(tensors)});
  return out;
}

RuleResults checked(const PeftFamily& family, const PeftRecord& record) {
  Deployment deployment;
  deployment.base = BaseModel{family.spec, family.config(), "", ""};
  deployment.numeric = true;
  deployment.threads = 1;
  deployment.adapters.push_back(subject_of(family, record.form));
  interpret(deployment.adapters.front(), deployment.base, {});
  const size_t plus = record.release.find('+');
  if (plus != std::string::npos) deployment.options.values["transformers"] = "5.5.4";
  deployment.engines.push_back({parse_engine("peft@" + record.release.substr(0, plus)),
                                deployment.options, std::nullopt, ""});
  plan_engines(deployment);
  return run_rules(deployment);
}

std::vector<std::string> wrong_numbers(const RuleResults& results) {
  std::vector<std::string> out;
  for (const Finding& finding : results.findings)
    if (finding.rule->id == "NUM002") out.push_back(finding.message);
  return out;
}

}  // namespace

TEST_CASE("what PEFT adds is what is meant where it loads an adapter whole, and only there") {
  size_t whole = 0, wrong = 0;
  each_peft_family([&](const PeftFamily& family) {
    if (kFamilies.count(family.name) == 0) return;
    for (const PeftRecord& record : family.records()) {
      if (record.raised || kOthers.count(record.form) != 0) continue;
      const std::vector<std::string> found = wrong_numbers(checked(family, record));
      INFO(family.name << "/" << record.form << " for " << record.release);
      for (const std::string& message : found) INFO(message);
      CHECK(found.empty() == record.is_whole());
      ++(record.is_whole() ? whole : wrong);
    }
  });
  CHECK(whole > 1000);
  CHECK(wrong > 300);
}

TEST_CASE("columns of lora_B that PEFT deals to other experts are another delta") {
  const auto wrong = [](const char* layout) {
    Specimen s = make_specimen("gpt_oss_stacked_params");
    s.numeric = true;
    s.config().erase("auto_mapping");
    s.config().set("lora_B_layout", layout);
    return wrong_numbers(run_rules(deployment_of(std::move(s), "peft")));
  };
  CHECK(wrong("rank_major").empty());
  REQUIRE(wrong("grouped_by_expert").size() == 1);
  CHECK(wrong("grouped_by_expert")[0].find("PFT013") != std::string::npos);
}
