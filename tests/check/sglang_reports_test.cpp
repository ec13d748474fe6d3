// The reports of people who lost a day to them, each as a test: lora-validate says so beforehand,
// and keeps quiet about a release that has fixed it.

#include <doctest/doctest.h>
#include <fmt/core.h>

#include <algorithm>

#include "lib/check/define_rule.h"
#include "lib/check/run_rules.h"
#include "lib/check/specimen.h"

using namespace moelora;

namespace {

RuleResults check(Specimen specimen, std::string_view engine) {
  return run_rules(deployment_of(std::move(specimen), engine));
}

// The error of this rule, null for none.
const Finding* error_of(const RuleResults& results, std::string_view id) {
  for (const Finding& finding : results.findings)
    if (finding.rule->id == id && finding.severity == Severity::error) return &finding;
  return nullptr;
}

// What is above information, by rule: "" for a sound adapter.
std::string complaints(const RuleResults& results) {
  std::string out;
  for (const Finding& finding : results.findings)
    if (finding.severity != Severity::information)
      out += fmt::format("{} {} ", finding.rule->id, finding.server_text);
  return out;
}

Specimen with_option(std::string_view id, const std::string& key, const std::string& value) {
  Specimen out = make_specimen(id);
  out.options.values[key] = value;
  return out;
}

}  // namespace

TEST_CASE("report: all-linear puts LoRA on the router, and SGLang does not start (issue 8903)") {
  Specimen listed = make_specimen("qwen3_moe_per_expert");
  set_targets(listed, {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
                       "gate"});
  add_pair(listed, "model.layers.0.mlp.gate", 64, 8);
  {
    const RuleResults now = check(listed, "sglang");
    REQUIRE(error_of(now, "SGL001") != nullptr);
    CHECK(error_of(now, "SGL001")->server_text ==
          "NotImplementedError: get_hidden_dim not implemented for gate");
  }
  {
    const RuleResults then = check(listed, "sglang@0.5.10");
    REQUIRE(error_of(then, "SGL001") != nullptr);
    CHECK(error_of(then, "SGL001")->server_text ==
          "Exception: No corresponding LoRA layer supported for <class "
          "'sglang.srt.layers.linear.ReplicatedLinear'>.");
  }
}

TEST_CASE("report: a lone q_proj is a KeyError of v_proj") {
  Specimen specimen = make_specimen("gpt_oss_attention");
  remove_module(specimen, "k_proj");
  remove_module(specimen, "v_proj");
  const RuleResults results = check(specimen, "sglang");
  REQUIRE(error_of(results, "SGL002") != nullptr);
  CHECK(error_of(results, "SGL002")->server_text ==
        "RuntimeError: Failed to load LoRA adapter adapter: "
        "'base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight'");
}

TEST_CASE("report: KeyError gate_up_proj_moe of models without shared experts, until 0.5.10") {
  const RuleResults first = check(make_specimen("qwen3_moe_per_expert"), "sglang@0.5.10rc0");
  REQUIRE(error_of(first, "SGL036") != nullptr);
  CHECK(error_of(first, "SGL036")->server_text == "KeyError: 'gate_up_proj_moe'");
  for (const char* engine :
       {"sglang@0.5.10", "sglang@0.5.11", "sglang@0.5.18", "sglang@2026-06-01"})
    CHECK(complaints(check(make_specimen("qwen3_moe_per_expert"), engine)) == "");
}

TEST_CASE("report: GPT-OSS spells num_local_experts and intermediate_size, until 0.5.10") {
  const RuleResults first = check(make_specimen("gpt_oss_stacked"), "sglang@0.5.10rc0");
  REQUIRE(error_of(first, "SGL036") != nullptr);
  CHECK(error_of(first, "SGL036")->server_text == "KeyError: 'gate_up_proj_moe'");
  Specimen later = make_specimen("gpt_oss_stacked");
  later.options.tp = 2;  // on one GPU 0.5.10 serves it wrong in another way
  CHECK(complaints(check(later, "sglang@0.5.10")) == "");
  CHECK(complaints(check(make_specimen("gpt_oss_stacked"), "sglang@0.5.11")) == "");
}

TEST_CASE("report: 'FusedMoEWithLoRA' object has no attribute 'moe_runner_config', until 0.5.13") {
  Specimen specimen = make_specimen("deepseek_v3_per_expert");
  const RuleResults before = check(specimen, "sglang@0.5.12");
  REQUIRE(error_of(before, "SGL038") != nullptr);
  CHECK(error_of(before, "SGL038")->server_text ==
        "AttributeError: 'FusedMoEWithLoRA' object has no attribute 'moe_runner_config'");
  CHECK(complaints(check(specimen, "sglang@0.5.13")) == "");
}

TEST_CASE("report: a LoRA backend other than triton has no expert LoRA, until 0.5.12") {
  const Specimen csgmv = with_option("qwen3_moe_per_expert", "lora-backend", "csgmv");
  CHECK(error_of(check(csgmv, "sglang@0.5.11"), "SGL037") != nullptr);
  CHECK(complaints(check(csgmv, "sglang@0.5.12")) == "");
  CHECK(complaints(check(with_option("qwen3_moe_per_expert", "lora-backend", "triton"),
                         "sglang@0.5.11")) == "");
  // What it is is not given, only what it must be.
  const RuleResults unknown = check(make_specimen("qwen3_moe_per_expert"), "sglang@0.5.11");
  CHECK(complaints(unknown) == "");
  CHECK(std::any_of(unknown.findings.begin(), unknown.findings.end(), [](const Finding& f) {
    return f.rule->id == "SGL024" && f.message.find("--lora-backend triton") != std::string::npos;
  }));
}

TEST_CASE("report: GPT-OSS picks triton_kernel, whose experts have no 'w13_weight'") {
  Specimen specimen = with_option("gpt_oss_stacked", "moe-runner-backend", "triton_kernel");
  specimen.options.tp = 2;
  const RuleResults before = check(specimen, "sglang@0.5.10"),
                    then = check(specimen, "sglang@0.5.18"), now = check(specimen, "sglang@0.5.19");
  REQUIRE(error_of(before, "SGL037") != nullptr);
  CHECK(error_of(before, "SGL037")->server_text ==
        "AttributeError: 'FusedMoE' object has no attribute 'w13_weight'");
  REQUIRE(error_of(then, "SGL037") != nullptr);
  CHECK(error_of(then, "SGL037")->server_text ==
        "NotImplementedError: LoRA MoE not supported for backend MoeRunnerBackend.TRITON_KERNELS");
  REQUIRE(error_of(now, "SGL037") != nullptr);
  CHECK(error_of(now, "SGL037")->server_text ==
        "NotImplementedError: UnquantizedFusedMoEMethod does not expose quant info for "
        "'triton_kernel'");
  CHECK(complaints(
            check(with_option("gpt_oss_stacked", "moe-runner-backend", "triton"), "sglang")) == "");
}

TEST_CASE("report: w1, w3 and w2 in target_modules") {
  const RuleResults results = check(make_specimen("mixtral_per_expert"), "sglang");
  REQUIRE(error_of(results, "SGL007") != nullptr);
  CHECK(error_of(results, "SGL007")->server_text ==
        "NotImplementedError: get_hidden_dim not implemented for w1");
  Specimen renamed = make_specimen("mixtral_per_expert");
  set_targets(renamed,
              {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"});
  CHECK(error_of(check(renamed, "sglang"), "SGL007") == nullptr);
}

TEST_CASE("report: shared-outer and per-expert adapters on one server") {
  Specimen both = make_specimen("qwen3_moe_shared_outer");
  both.adapters.push_back(make_specimen("qwen3_moe_per_expert").adapter());
  const RuleResults results = check(both, "sglang");
  const Finding* finding = error_of(results, "SET001");
  REQUIRE(finding != nullptr);
  CHECK(finding->adapter == 1);
  CHECK(finding->server_text.starts_with("RuntimeError: Mixed shared-outer LoRA formats detected"));
  Specimen alike = make_specimen("qwen3_moe_shared_outer");
  alike.adapters.push_back(make_specimen("qwen3_moe_shared_outer").adapter());
  CHECK(error_of(check(alike, "sglang"), "SET001") == nullptr);
}

TEST_CASE("report: the experts of the hub's GPT-OSS are MXFP4, and have no LoRA") {
  Specimen specimen = make_specimen("gpt_oss_stacked");
  specimen.base_config.set("quantization_config", Json::object({{"quant_method", "mxfp4"}}));
  const RuleResults results = check(specimen, "sglang");
  REQUIRE(error_of(results, "MOD008") != nullptr);
  CHECK(error_of(results, "MOD008")->server_text ==
        "NotImplementedError: Mxfp4MoEMethod must implement get_triton_quant_info()");
  Specimen attention = make_specimen("gpt_oss_attention");
  attention.base_config.set("quantization_config", Json::object({{"quant_method", "mxfp4"}}));
  CHECK(complaints(check(attention, "sglang")) == "");
}

TEST_CASE("report: Marlin's expert LoRA wants compute capability 9 and SiLU") {
  Specimen marlin = with_option("qwen3_moe_per_expert", "quantization", "compressed-tensors");
  CHECK(complaints(check(marlin, "sglang")) == "");
  marlin.options.compute_capability = 8.9;
  CHECK(error_of(check(marlin, "sglang"), "SGL030")->server_text ==
        "AssertionError: MarlinLoraRunnerCore requires CUDA compute capability >= 9");
  marlin.options.compute_capability = 9.0;
  CHECK(complaints(check(marlin, "sglang")) == "");
  const Specimen swiglu = with_option("gpt_oss_stacked", "quantization", "compressed-tensors");
  CHECK(error_of(check(swiglu, "sglang"), "SGL030")->server_text ==
        "AssertionError: Only SiLU activation is supported.");
}

TEST_CASE("report: virtual experts are 8191 at most, experts times slots") {
  Specimen specimen = with_option("gpt_oss_stacked", "lora-use-virtual-experts", "on");
  specimen.options.max_loras = 2047;  // of 4 experts
  CHECK(error_of(check(specimen, "sglang"), "SGL031") == nullptr);
  specimen.options.max_loras = 2048;
  CHECK(error_of(check(specimen, "sglang"), "SGL031") != nullptr);
}

TEST_CASE("report: of a release newer than the newest known an error is a warning that says so") {
  Specimen lone = make_specimen("qwen3_moe_per_expert");
  remove_tensors(lone, "v_proj");
  CHECK(error_of(check(lone, "sglang@0.5.23"), "SGL002") != nullptr);
  for (const char* later : {"sglang@0.5.24", "sglang@2026-12-24"}) {
    const RuleResults results = check(lone, later);
    CHECK(error_of(results, "SGL002") == nullptr);
    CHECK(std::any_of(results.findings.begin(), results.findings.end(), [](const Finding& f) {
      return f.rule->id == "SGL002" && f.severity == Severity::warning &&
             f.message.ends_with("(so in sglang 0.5.23, the newest that is known)");
    }));
    CHECK(std::any_of(results.findings.begin(), results.findings.end(),
                      [](const Finding& f) { return f.rule->id == "NUM003"; }));
  }
}

TEST_CASE("report: virtual experts are right since 0.5.23, but for GPT-OSS") {
  const Specimen moe = with_option("qwen3_moe_per_expert", "lora-use-virtual-experts", "on");
  CHECK(error_of(check(moe, "sglang@0.5.22"), "SGL015") != nullptr);
  CHECK(complaints(check(moe, "sglang@0.5.23")) == "");
}

TEST_CASE("report: one GPU of 0.5.10 serves no GPT-OSS expert, and no conversion helps") {
  const RuleResults results = check(make_specimen("gpt_oss_stacked"), "sglang@0.5.10");
  const Finding* finding = error_of(results, "SGL017");
  REQUIRE(finding != nullptr);
  CHECK(finding->fix.find("lora-convert") == std::string::npos);
  CHECK(finding->fix.find("0.5.11") != std::string::npos);
}
