// Borders of the rules of values: what is not finite, not trained, equal, too wide.

#include <doctest/doctest.h>

#include <cmath>

#include "lib/base/cast.h"
#include "lib/check/specimen.h"
#include "tests/check/goldens.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const std::string kQ = "base_model.model.model.layers.0.self_attn.q_proj.lora_";

}  // namespace

TEST_CASE("the first value that is not finite is named by its coordinates, in all float types") {
  for (DType dtype : {DType::F32, DType::F16, DType::BF16, DType::F64}) {
    CAPTURE(dtype_name(dtype));
    Specimen specimen = make_specimen("qwen3_moe_per_expert");
    std::vector<float> values(4 * 64, 0.5F);
    values[3 * 64 + 17] = INFINITY;
    values[3 * 64 + 18] = NAN;
    const Tensor tensor = Tensor::of_f32({4, 64}, values);
    specimen.set(kQ + "A.weight", tensor.map_sources(dtype, [&](const SourcePtr& source) {
      return cast_source(source, dtype);
    }));
    const auto found = found_by(run_rules(deployment_of(std::move(specimen), "")), "FMT008");
    REQUIRE(found.size() == 1);
    CHECK(found[0].message == "1 NaN and 1 infinity in 1 tensor, the first at [3, 17]");
    CHECK(found[0].names == std::vector<std::string>{kQ + "A.weight"});
  }
}

TEST_CASE("a lora_B is untrained below a root mean square of 1e-6, and not above") {
  const auto severity_of = [](float a, float b) {
    Specimen specimen = make_specimen("qwen3_moe_per_expert");
    std::vector<float> values(64 * 4, b);
    for (size_t i = 0; i < values.size(); i += 2) values[i] = -b;
    specimen.set(kQ + "B.weight", Tensor::of_f32({64, 4}, values));
    if (a == 0) specimen.set(kQ + "A.weight", specimen.zeros({4, 64}));
    return found_by(run_rules(deployment_of(std::move(specimen), "")), "FMT009").size();
  };
  CHECK(severity_of(1, 0) == 1);
  CHECK(severity_of(1, 0.9e-6F) == 1);
  CHECK(severity_of(1, 1.1e-6F) == 0);
  CHECK(severity_of(0, 0) == 0);  // both zero: written to fill a place
}

TEST_CASE("a lora_B of equal values that are not zero changes the model, one of NaN is no start") {
  for (const float value : {0.5F, -1e-3F, std::numeric_limits<float>::quiet_NaN(), 0x1p127F}) {
    CAPTURE(value);
    Specimen specimen = make_specimen("qwen3_moe_per_expert");
    specimen.set(kQ + "B.weight", Tensor::of_f32({64, 4}, std::vector<float>(256, value)));
    CHECK(found_by(run_rules(deployment_of(std::move(specimen), "")), "FMT009").empty());
  }
}

TEST_CASE("an adapter whose every lora_B is zero is the base model, an error") {
  const RuleResults results = check_specimen("qwen3_moe_per_expert", [](Specimen& s) {
    for (auto& [name, tensor] : s.tensors())
      if (name.find("lora_B") != std::string::npos)
        tensor = Tensor::zeros(tensor.dtype(), tensor.shape());
  });
  const auto found = found_by(results, "FMT009");
  REQUIRE(found.size() == 1);
  CHECK(found[0].severity == Severity::error);
  CHECK(found[0].message ==
        "is zero, as training starts: 56 of 56 low-rank pairs change nothing, this adapter is the "
        "base model");
}

TEST_CASE(
    "zeros in every lora_A, or in every factor, are the base model too; beside a trained pair they "
    "fill") {
  const auto found_without = [](std::string_view zeros, std::string_view kept) {
    Specimen specimen = make_specimen("qwen3_moe_per_expert");
    for (auto& [name, tensor] : specimen.tensors())
      if (name.find(zeros) != std::string::npos && name.find(kept) == std::string::npos)
        tensor = Tensor::zeros(tensor.dtype(), tensor.shape());
    return found_by(run_rules(deployment_of(std::move(specimen), "")), "FMT009");
  };
  auto found = found_without("lora_A", "nothing");
  REQUIRE(found.size() == 1);
  CHECK(found[0].severity == Severity::error);
  CHECK(found[0].message ==
        "is zero: 56 of 56 low-rank pairs change nothing, this adapter is the base model");
  found = found_without("lora_", "nothing");
  REQUIRE(found.size() == 1);
  CHECK(found[0].severity == Severity::error);
  CHECK(found[0].message ==
        "is zero, as training starts: 56 of 56 low-rank pairs change nothing, this adapter is the "
        "base model");
  found = found_without("lora_A", "q_proj");
  REQUIRE(found.size() == 1);
  CHECK(found[0].severity == Severity::warning);
  CHECK(found_without("lora_", "q_proj").empty());
}

TEST_CASE("an embedding starts with a lora_A of zeros, which is only information") {
  const RuleResults results = check_golden("gpt_oss", "embed_lm_head", true).results;
  CHECK(worst(found_by(results, "FMT009")) == Severity::information);
}

TEST_CASE("equal experts are found in every layout, and what would collapse them is named") {
  for (const std::string id : {"gpt_oss_stacked", "qwen3_moe_per_expert"}) {
    CAPTURE(id);
    Specimen s = make_specimen(id);
    for (auto& [name, tensor] : s.tensors()) {
      if (name.find("experts") == std::string::npos || name.find("lora_A") == std::string::npos ||
          name.find("down_proj") != std::string::npos)
        continue;
      tensor = filled(tensor.shape(), 0.25F);
    }
    const auto found = found_by(run_rules(deployment_of(std::move(s), "")), "FMT018");
    REQUIRE(found.size() == 1);
    CHECK(found[0].severity == Severity::information);
    CHECK(found[0].message.find("one for all experts") != std::string::npos);
    CHECK(found[0].fix.find("--to shared-outer") != std::string::npos);
  }
  CHECK(found_by(check_specimen("qwen3_moe_per_expert", [](Specimen&) {}), "FMT018").empty());
  CHECK(found_by(check_specimen("qwen3_moe_shared_outer", [](Specimen&) {}), "FMT018").empty());
  const auto tinker = check_golden("gpt_oss", "tinker.build_lora_adapter", true).results;
  CHECK(found_by(tinker, "FMT018").size() == 1);  // an expanded shared outer
}

TEST_CASE("experts that were never trained are not equal experts") {
  const RuleResults results = check_specimen("qwen3_moe_per_expert", [](Specimen& s) {
    for (auto& [name, tensor] : s.tensors())
      if (name.find("experts") != std::string::npos && name.find("lora_B") != std::string::npos)
        tensor = Tensor::zeros(tensor.dtype(), tensor.shape());
  });
  CHECK(found_by(results, "FMT018").empty());
}

TEST_CASE("F16 overflows where value times scale passes 65504, not before") {
  const auto count = [](float value) {  // the scale is 8 / 4
    Specimen s = make_specimen("qwen3_moe_per_expert");
    s.set(kQ + "B.weight", filled({64, 4}, value, DType::F16));
    size_t errors = 0;
    for (const Finding& f : found_by(run_rules(deployment_of(std::move(s), "")), "FMT020"))
      errors += f.severity == Severity::error ? 1U : 0U;
    return errors;
  };
  CHECK(count(32752) == 0);  // 65504
  CHECK(count(32768) == 1);
}

TEST_CASE("wide factors are reported beside a BF16 base model, with what is lost") {
  const RuleResults results = check_specimen("qwen3_moe_per_expert", [](Specimen&) {});
  const auto found = found_by(results, "FMT020");
  REQUIRE(found.size() == 1);
  CHECK(found[0].message.find("a value changes by 0.39 % at most") != std::string::npos);
  const auto f32_base = [](Specimen& s) { s.base_config.set("dtype", "float32"); };
  CHECK(found_by(check_specimen("qwen3_moe_per_expert", f32_base), "FMT020").empty());
  CHECK(found_by(check_golden("gpt_oss", "peft_params_bf16", true).results, "FMT020").empty());
}
