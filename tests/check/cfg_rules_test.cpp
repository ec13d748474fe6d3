// Borders of the rules of adapter_config.json.

#include <doctest/doctest.h>

#include <algorithm>

#include "lib/check/json_schema_subset.h"
#include "lib/check/specimen.h"
#include "lib/engine/peft/peft.h"
#include "tests/check/goldens.h"

using namespace moelora;
using namespace moelora::test;

namespace {

std::vector<std::string> faults(std::string_view config) {
  std::vector<std::string> out;
  for (const SchemaFault& fault :
       check_schema(parse_json(config, "adapter_config.json"), adapter_config_schema()))
    out.push_back(fault.path + " " + fault.message);
  return out;
}

constexpr std::string_view kSound =
    R"({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]})";

RuleResults check_config(std::string_view specimen, std::string_view key, Json value,
                         std::string_view engine = "") {
  Specimen s = make_specimen(specimen);
  s.config().set(key, std::move(value));
  return run_rules(deployment_of(std::move(s), engine));
}

}  // namespace

TEST_CASE("the schema of adapter_config.json is held, fault by fault") {
  using Faults = std::vector<std::string>;
  CHECK(faults(kSound).empty());
  CHECK(faults(R"({"r": 4})") ==
        Faults{"peft_type is missing", "lora_alpha is missing", "target_modules is missing"});
  CHECK(faults(R"([1])") == Faults{" is an array, expected an object"});
  const auto with = [](std::string_view member) {
    return faults(std::string(kSound.substr(0, kSound.size() - 1)) + ", " + std::string(member) +
                  "}");
  };
  CHECK(with(R"("r2": 1)").empty());  // unknown keys are allowed
  CHECK(with(R"("use_dora": "yes")") == Faults{"use_dora is a string, expected a boolean or null"});
  CHECK(with(R"("rank_pattern": {"q_proj": 0})") ==
        Faults{"rank_pattern.q_proj is 0, expected 1 at least"});
  CHECK(with(R"("rank_pattern": {"q_proj": "8"})") ==
        Faults{"rank_pattern.q_proj is a string, expected an integer"});
  CHECK(with(R"("bias": "some")") ==
        Faults{R"(bias is "some", expected one of ["none", "all", "lora_only"])"});
  CHECK(with(R"("modules_to_save": ["lm_head", 3])") ==
        Faults{"modules_to_save[1] is an integer, expected a string"});
  CHECK(with(R"("layer_replication": [[0, 4], [2]])") ==
        Faults{"layer_replication[1] has 1 items"});
  CHECK(with(R"("layers_to_transform": "all")").size() == 1);
  CHECK(with(R"("layers_to_transform": 3)").empty());
  CHECK(with(R"("layers_to_transform": [1, 2])").empty());
  CHECK(faults(R"({"peft_type": "IA3", "r": 4, "lora_alpha": 8, "target_modules": ".*q"})") ==
        Faults{R"(peft_type is "IA3", expected "LORA")"});
}

TEST_CASE("a hostile config has a bounded number of faults") {
  std::string config = R"({"target_modules": [)";
  for (int i = 0; i < 10000; ++i) config += i == 0 ? "1" : ", 1";
  CHECK(faults(config + "]}").size() < 100);
}

TEST_CASE("a missing key is an error for those who read it") {
  const auto severity = [](std::string_view key, std::string_view engine) {
    Specimen s = make_specimen("qwen3_moe_per_expert");
    s.config().erase(key);
    return worst(found_by(run_rules(deployment_of(std::move(s), engine)), "CFG001"));
  };
  for (const char* key : {"r", "lora_alpha"})
    for (const char* engine : {"", "sglang", "vllm"})
      CHECK(severity(key, engine) == Severity::error);
  CHECK(severity("target_modules", "") == Severity::error);
  CHECK(severity("target_modules", "sglang") == Severity::error);
  CHECK(severity("target_modules", "vllm") == Severity::error);
  CHECK(severity("target_modules", "peft") == Severity::warning);
  CHECK(severity("peft_type", "") == Severity::error);
  CHECK(severity("peft_type", "sglang") == Severity::error);
  CHECK(severity("peft_type", "vllm") == Severity::warning);
}

TEST_CASE("target_modules may be null, but for SGLang") {
  CHECK(found_by(check_config("qwen3_moe_stacked_params", "target_modules", Json()), "CFG001")
            .empty());
  const auto found =
      found_by(check_config("qwen3_moe_per_expert", "target_modules", Json(), "sglang"), "CFG001");
  REQUIRE(!found.empty());
  CHECK(found[0].severity == Severity::error);
  CHECK(found[0].server_text.find("'NoneType' object is not iterable") != std::string::npos);
}

TEST_CASE("a finding of a config points at its line") {
  const auto found =
      found_by(check_config("qwen3_moe_per_expert", "init_lora_weights", "olora"), "CFG004");
  REQUIRE(found.size() == 1);
  CHECK(found[0].file == "adapter_config.json");
  CHECK(found[0].where == "init_lora_weights");
}

TEST_CASE("ranks are compared after rank_pattern, by any name the module has") {
  const auto with_pattern = [](const char* key, std::string_view part) {
    Specimen s = make_specimen("deepseek_v3_per_expert");
    s.config().set("rank_pattern", Json::object({{key, 2}}));
    for (auto& [name, tensor] : s.tensors())
      if (name.find(part) != std::string::npos)
        tensor = name.find("lora_A") != std::string::npos ? tensor.slice(0, 0, 2)
                                                          : tensor.slice(1, 0, 2);
    return run_rules(deployment_of(std::move(s), ""));
  };
  for (const char* key : {"o_proj", "self_attn.o_proj", ".*\\.o_proj", "o_.*"}) {
    CAPTURE(key);
    const RuleResults results = with_pattern(key, "o_proj");
    INFO(findings_text(results));
    CHECK(found_by(results, "CFG002").empty());
    CHECK(found_by(results, "CFG003").empty());
  }
  const auto wrong = found_by(with_pattern("o_proj", "q_b_proj"), "CFG002");
  REQUIRE(wrong.size() == 2);
  CHECK(wrong[0].names.size() == 4);  // o_proj has 4 where 2 is said, q_b_proj 2 where 4 is said
}

TEST_CASE("a pattern of expert parameters is alive by the parameter's path only") {
  const auto dead = [](const char* key) {
    return found_by(
               check_config("qwen3_moe_stacked_params", "alpha_pattern", Json::object({{key, 16}})),
               "CFG003")
        .size();
  };
  CHECK(dead("experts.gate_up_proj") == 0);
  CHECK(dead("mlp.experts.down_proj") == 0);
  CHECK(dead("layers.0.mlp.experts.down_proj") == 0);
  CHECK(dead("experts") == 1);
  CHECK(dead("experts.base_layer") == 1);
  CHECK(dead("experts.gate_proj") == 1);
  CHECK(dead("q_proj") == 0);
}

TEST_CASE("dead patterns of one kind are one finding, at the first of them") {
  Json::Members keys;
  for (int i = 0; i < 40; ++i) keys.emplace_back("layers." + std::to_string(i) + ".query_proj", 16);
  keys.emplace_back("q_proj", 16);
  keys.emplace_back("(", 16);
  const auto found =
      found_by(check_config("qwen3_moe_per_expert", "alpha_pattern", Json::object(keys)), "CFG003");
  REQUIRE(found.size() == 2);
  CHECK(found[0].message ==
        "40 keys, each of which matches no module of this adapter: \"layers.0.query_proj\", "
        "\"layers.1.query_proj\", \"layers.2.query_proj\", \"layers.3.query_proj\", "
        "\"layers.4.query_proj\", \"layers.5.query_proj\" and 34 more");
  CHECK(found[1].message.find("is not a valid regular expression") != std::string::npos);
}

TEST_CASE("only inits that change the base weights are refused") {
  for (const char* init : {"pissa", "pissa_niter_4", "olora", "corda", "lora_ga", "loftq"})
    CHECK(found_by(check_config("qwen3_moe_per_expert", "init_lora_weights", init), "CFG004")
              .size() == 1);
  for (const char* init : {"gaussian", "eva", "orthogonal"})
    CHECK(found_by(check_config("qwen3_moe_per_expert", "init_lora_weights", init), "CFG004")
              .empty());
}

TEST_CASE("targets name modules by their ends, by regular expression, and experts by any name") {
  const auto count = [](Json targets) {
    const RuleResults results =
        check_config("qwen3_moe_per_expert", "target_modules", std::move(targets));
    return worst(found_by(results, "CFG005"));
  };
  const Json whole =
      Json::strings({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"});
  CHECK(count(whole) == Severity::information);
  CHECK(count("all-linear") == Severity::information);
  CHECK(count(".*(q|k|v|o|gate|up|down)_proj") == Severity::information);
  CHECK(count(Json::strings({"q_proj", "k_proj", "v_proj", "o_proj", "w1", "w3", "w2"})) ==
        Severity::information);
  CHECK(count(Json::strings({"q_proj", "k_proj", "v_proj", "o_proj", "experts"})) ==
        Severity::information);
  CHECK(count(Json::strings({"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj"})) ==
        Severity::warning);  // o_proj has tensors
  CHECK(count(Json::strings({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj",
                             "down_proj", "lm_head"})) == Severity::warning);
  CHECK(count(".*(q|k|v)_proj") == Severity::warning);
}

TEST_CASE("a target that the base model has nowhere is only information") {
  const auto found =
      found_by(check_config("qwen3_moe_per_expert", "target_modules",
                            Json::strings({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj",
                                           "up_proj", "down_proj", "c_attn"})),
               "CFG005");
  REQUIRE(found.size() == 1);
  CHECK(found[0].severity == Severity::information);
  CHECK(found[0].message == "names \"c_attn\", which this base model does not have");
}

TEST_CASE("variants that PEFT knows are not errors for PEFT") {
  const auto severity = [](const char* key, std::string_view engine) {
    return worst(found_by(
        check_config("qwen3_moe_stacked_params", key, Json::array({Json(1), Json(2)}), engine),
        "CFG007"));
  };
  CHECK(severity("alora_invocation_tokens", "") == Severity::error);
  CHECK(severity("alora_invocation_tokens", "vllm") == Severity::error);
  CHECK(severity("alora_invocation_tokens", "peft@0.17") == Severity::error);
  CHECK(severity("alora_invocation_tokens", "peft@0.18") == Severity::information);
  CHECK(found_by(check_config("qwen3_moe_per_expert", "use_qalora", false), "CFG007").empty());
  CHECK(found_by(check_config("qwen3_moe_per_expert", "layer_replication", Json::array()), "CFG007")
            .empty());
  const auto training = found_by(
      check_config("qwen3_moe_per_expert", "velora_config", Json::object({{"num_groups", 64}})),
      "CFG007");
  REQUIRE(training.size() == 1);
  CHECK(training[0].severity == Severity::information);
}

TEST_CASE("half of gate and up is PEFT's error from 0.19 on, by the rule of its plan alone") {
  const auto found = [](std::string_view rule, std::string_view engine) {
    return found_by(check_config("qwen3_moe_per_expert", "target_modules",
                                 Json::strings({"q_proj", "k_proj", "v_proj", "o_proj", "up_proj",
                                                "down_proj"}),
                                 engine),
                    rule);
  };
  REQUIRE(found("CFG008", "").size() == 1);
  CHECK(found("CFG008", "")[0].severity == Severity::warning);
  REQUIRE(found("CFG008", "sglang").size() == 1);
  CHECK(found("CFG008", "sglang")[0].severity == Severity::information);
  for (const char* engine : {"peft@0.18", "peft@0.19.1"}) CHECK(found("CFG008", engine).empty());
  const auto refused = found("PFT006", "peft@0.19.1");
  REQUIRE(refused.size() == 1);
  CHECK(refused[0].severity == Severity::error);
  CHECK(
      refused[0].server_text ==
      "ValueError: Cannot convert PEFT target(s) up_proj without also targeting gate_proj because "
      "they are fused into gate_up_proj.");
}

TEST_CASE("layers_to_transform is trusted from PEFT 0.20 on") {
  const auto count = [](const char* version) {
    Specimen s = make_specimen("qwen3_moe_per_expert");
    s.config().set("layers_to_transform", Json::array({Json(0), Json(1)}));
    if (version != nullptr) s.config().set("peft_version", version);
    return found_by(run_rules(deployment_of(std::move(s), "")), "CFG009").size();
  };
  CHECK(count(nullptr) == 1);
  CHECK(count("0.18.1") == 1);
  CHECK(count("0.19.1") == 1);
  CHECK(count("0.20.0") == 0);
  CHECK(count("0.20.1.dev0@5d602fd") == 0);
  CHECK(count("0.21.0") == 0);
}

TEST_CASE("versions of PEFT are read through their suffixes") {
  CHECK(release_of("0.20.1.dev0@5d602fd") == "0.20.1");
  CHECK(release_of("0.19.0") == "0.19.0");
  CHECK(release_of("@UNKNOWN").empty());
  CHECK(release_of("").empty());
}
