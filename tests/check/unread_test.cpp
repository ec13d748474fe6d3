// Factors that nothing reads, names of wrapped models, and scales of zero.

#include <doctest/doctest.h>

#include "lib/check/define_rule.h"
#include "lib/check/specimen.h"
#include "tests/check/goldens.h"

using namespace moelora;
using namespace moelora::test;

namespace {

constexpr const char* kSound = "qwen3_moe_per_expert";
constexpr std::string_view kModes[] = {"", "peft", "vllm", "sglang"};

void to_mlx(Specimen& s) {
  rename_tensors(s, ".lora_A.weight", ".lora_a");
  rename_tensors(s, ".lora_B.weight", ".lora_b");
}

void some_to_diffusers(Specimen& s) {
  rename_tensors(s, "layers.0.self_attn.q_proj.lora_A", "layers.0.self_attn.q_proj.lora_down");
  rename_tensors(s, "layers.0.self_attn.q_proj.lora_B", "layers.0.self_attn.q_proj.lora_up");
}

void to_compiled(Specimen& s) {
  rename_tensors(s, "base_model.model.", "base_model.model._orig_mod.");
}

}  // namespace

TEST_CASE("factors that nothing reads are an error in every mode, and the spelling is named") {
  for (const std::string_view mode : kModes) {
    CAPTURE(mode);
    const RuleResults mlx = check_specimen(kSound, to_mlx, mode);
    INFO(findings_text(mlx));
    const Finding all = only(mlx, "FMT022");
    CHECK(all.severity == Severity::error);
    CHECK(all.message.find("spelling of MLX") != std::string::npos);
    const Finding two = only(check_specimen(kSound, some_to_diffusers, mode), "FMT022");
    CHECK(two.severity == Severity::error);
    CHECK(two.message.starts_with("2 of "));
    CHECK(two.names.size() == 2);
    CHECK(found_by(check_specimen(
                       kSound, [](Specimen&) {}, mode),
                   "FMT022")
              .empty());
  }
}

TEST_CASE("tensors that neither are factors nor are named by the config are an error") {
  const auto with = [](void (*change)(Specimen&), std::string_view mode) {
    return found_by(check_specimen(kSound, change, mode), "FMT022");
  };
  const auto gating = [](Specimen& s) {
    set_tensor(s, "base_model.model.model.layers.0.self_attn.q_proj.gating", {4});
  };
  for (const std::string_view mode : kModes) {
    CAPTURE(mode);
    const auto found = with(gating, mode);
    REQUIRE(found.size() == 1);
    CHECK(found[0].severity == Severity::error);
    CHECK(found[0].message.starts_with("1 of "));
    CHECK(found[0].message.find("modules_to_save") != std::string::npos);
  }
  // Named, or a part that adapters carry without naming it.
  CHECK(with(
            [](Specimen& s) {
              set_tensor(s, "base_model.model.model.layers.0.self_attn.q_proj.gating", {4});
              s.config().set("modules_to_save", Json::strings({"q_proj"}));
            },
            "")
            .empty());
  CHECK(with(
            [](Specimen& s) {
              set_tensor(s, "base_model.model.lm_head.weight", {160, 64});
            },
            "")
            .empty());
}

TEST_CASE("another method than LoRA is an error in every mode, and no key is missing") {
  const auto adalora = [](Specimen& s) { s.config().set("peft_type", "ADALORA"); };
  for (const std::string_view mode : kModes) {
    CAPTURE(mode);
    const Finding found = only(check_specimen(kSound, adalora, mode), "CFG001");
    CHECK(found.severity == Severity::error);
    CHECK(found.fix.find("merge it") != std::string::npos);
  }
  // vLLM does not look at the key.
  CHECK(only(check_specimen(
                 kSound, [](Specimen& s) { s.config().erase("peft_type"); }, "vllm"),
             "CFG001")
            .severity == Severity::warning);
}

TEST_CASE("the config of MLX is called that, not one that lacks PEFT's keys") {
  const auto mlx = [](Specimen& s) {
    s.config() = parse_json(R"({"fine_tune_type": "lora", "lora_parameters": {"rank": 4}})", "c");
    to_mlx(s);
  };
  const RuleResults results = check_specimen(kSound, mlx, "vllm");
  INFO(findings_text(results));
  CHECK(only(results, "CFG001").message.find("config of an MLX adapter") != std::string::npos);
  for (const Finding& finding : results.findings)
    CHECK(finding.fix.find("as the trainer used") == std::string::npos);
}

TEST_CASE("stacked factors of every expert are not called shared") {
  const auto unshared = [](Specimen& s) {
    replace_tensors(s, "experts.w1.lora_A", {8, 4, 64});
    replace_tensors(s, "experts.w3.lora_A", {8, 4, 64});
    replace_tensors(s, "experts.w2.lora_B", {8, 64, 4});
  };
  const auto message = [](void (*change)(Specimen&)) {
    return only(check_specimen("qwen3_moe_shared_outer", change, "vllm"), "VLM022").message;
  };
  CHECK(message(unshared).starts_with("nothing is shared here"));
  CHECK(message([](Specimen&) {}).find("nothing is shared") == std::string::npos);
}

TEST_CASE("no server's rule advises to merge or drop the training") {
  for (const std::string_view mode : {"vllm", "sglang"}) {
    const RuleResults results = check_specimen(kSound, some_to_diffusers, mode);
    INFO(findings_text(results));
    for (const Finding& finding : results.findings)
      if (finding.rule->engine != nullptr && finding.severity == Severity::error)
        CHECK(finding.fix.find("Merge the saved modules") == std::string::npos);
  }
}

TEST_CASE("names of a wrapped model are an error where a server does not take them") {
  for (const std::string_view mode : {"", "peft", "vllm"}) {
    CAPTURE(mode);
    const RuleResults results = check_specimen(kSound, to_compiled, mode);
    INFO(findings_text(results));
    CHECK(worst(found_by(results, "FMT023")) == Severity::error);
    CHECK(found_by(results, "MOD001").empty());  // the module is the model's
  }
}

TEST_CASE("a scale of zero is an error, a negative one a warning") {
  const auto severity = [](void (*change)(Specimen&), std::string_view mode) {
    return worst(found_by(check_specimen(kSound, change, mode), "CFG011"));
  };
  for (const std::string_view mode : kModes) {
    CAPTURE(mode);
    CHECK(severity([](Specimen& s) { s.config().set("lora_alpha", 0); }, mode) == Severity::error);
    CHECK(severity([](Specimen& s) { s.config().set("lora_alpha", -8); }, mode) ==
          Severity::warning);
    CHECK(severity(
              [](Specimen& s) {
                s.config().set("alpha_pattern", Json::object({{"q_proj", Json(0)}}));
              },
              mode) == Severity::error);
    CHECK(found_by(check_specimen(
                       kSound, [](Specimen&) {}, mode),
                   "CFG011")
              .empty());
  }
}

TEST_CASE("PEFT finds keys with the name default, and no other") {
  const auto severity = [](void (*change)(Specimen&)) {
    return worst(found_by(check_specimen(kSound, change, "peft"), "FMT015"));
  };
  CHECK(severity([](Specimen& s) { rename_tensors(s, ".weight", ".default.weight"); }) ==
        Severity::information);
  CHECK(severity([](Specimen& s) { rename_tensors(s, ".weight", ".sft.weight"); }) ==
        Severity::error);
}

TEST_CASE("an order that the writer's stamp tells to be another than PEFT's is an error") {
  const auto stamped = [](Specimen& s) {
    s.config().erase("auto_mapping");
    s.config().set(
        "auto_mapping",
        Json::object({{"unsloth_fixed", Json(true)},
                      {"parent_library", "transformers.models.qwen3_moe.modeling_qwen3_moe"}}));
  };
  const Finding found = only(check_specimen("qwen3_moe_stacked_params", stamped, "peft"), "FMT011");
  CHECK(found.severity == Severity::error);
  CHECK(found.message.find("auto_mapping.unsloth_fixed") != std::string::npos);
}
