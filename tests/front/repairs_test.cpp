// Every lora-convert that a finding prints is run as it is printed, and its output is judged: the
// finding is gone, and no error is new.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <filesystem>
#include <set>

#include "lib/adapter/init.h"
#include "lib/check/specimen.h"
#include "lib/model/base_model.h"
#include "lib/model/model_builder.h"
#include "tests/adapter/made_adapter.h"
#include "tests/front/repair_cases.h"

using namespace moelora;
using namespace moelora::test;

namespace {

bool is_repairable(const Finding& finding, const RepairCase& of) {
  if (finding.remedy == Remedy::for_engine) return !of.options.engines.empty();
  return finding.remedy == Remedy::rewrite;
}

}  // namespace

TEST_CASE("every command that an example's findings print repairs them") {
  const TempFolder temp;
  int runs = 0;
  std::set<std::string_view> without;
  for (const Rule* rule : all_rules()) {
    const auto of = example_case(temp, *rule);
    if (!of) continue;
    const Validation before = of->validate();
    runs += check_commands(*of, before, {nullptr, rule});
    for (const Finding& finding : before.findings)
      if (finding.rule == rule && is_repairable(finding, *of) && !finding.repair)
        without.insert(rule->id);
  }
  CHECK(runs > 60);
  // Integers for factors, modules of another base, a release that serves no such adapter right,
  // names of fused modules that the base has apart, a rank that the config contradicts.
  CHECK(fmt::format("{}", fmt::join(without, " ")) ==
        "FMT018 MOD001 SGL017 SGL022 VLM003 VLM006 VLM018 VLM025");
}

// ---- made cases ----

namespace {

namespace fs = std::filesystem;

RepairCase made_case(const TempFolder& temp, const std::string& name, const MadeAdapter& made,
                     const std::string& family, const std::string& engine) {
  RepairCase out{name, temp.path("it's " + name), {}};
  fs::create_directories(out.folder);
  made.write(out.adapter());
  out.options.base = std::string(MOELORA_TEST_DATA) + "/catalogue/" + family;
  if (!engine.empty()) out.options.engines = {engine};
  return out;
}

std::vector<const Finding*> findings_of(const Validation& found, std::string_view rule) {
  std::vector<const Finding*> out;
  for (const Finding& finding : found.findings)
    if (finding.rule->id == rule) out.push_back(&finding);
  return out;
}

std::string above_information(const Validation& found) {
  std::string out;
  for (const Finding& finding : found.findings)
    if (finding.severity != Severity::information)
      out += fmt::format("{} {}\n", finding.rule->id, finding.message);
  return out;
}

// Linear attention, full attention and a router of the catalogue's Qwen3.5.
MadeAdapter qwen3_5(const std::string& targets, bool router) {
  const ModelSpec spec = catalogue_base("../families/qwen3_5_moe").spec;
  MadeAdapter made(R"({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": )" +
                   targets + "}");
  const auto add = [&](const std::string& module) {
    const LinearSpec* linear = spec.find_linear(module);
    REQUIRE(linear != nullptr);
    made.pair(module, {2, linear->in}, {linear->out, 2});
  };
  add("model.language_model.layers.0.linear_attn.in_proj_qkv");
  add("model.language_model.layers.0.linear_attn.in_proj_z");
  add("model.language_model.layers.0.linear_attn.out_proj");
  if (router) add("model.language_model.layers.0.mlp.shared_expert_gate");
  return made;
}

}  // namespace

TEST_CASE("one fault does not hide others: an expression in target_modules, a router, a split") {
  const TempFolder temp;
  const RepairCase of = made_case(
      temp, "regex",
      qwen3_5(R"("^model\\..*\\.(in_proj_qkv|in_proj_z|out_proj|shared_expert_gate)$")", true),
      "../families/qwen3_5_moe", "sglang");
  const Validation found = of.validate();
  for (const std::string rule : {"SGL001", "SGL008", "SGL022"}) {
    CAPTURE(rule);
    CAPTURE(above_information(found));
    const auto findings = findings_of(found, rule);
    REQUIRE(!findings.empty());
    REQUIRE(findings.front()->repair);
    CHECK(findings.front()->repair->drop == std::vector<std::string>{"router"});
    CHECK(findings.front()->fix.find("leaves out the factors of --drop router") !=
          std::string::npos);
  }
  CHECK(check_commands(of, found) >= 3);
  CHECK(find_repair(found) == nullptr);  // --fix leaves nothing out
}

TEST_CASE("what a conversion cuts from in_proj_qkv for SGLang is verified and raises no finding") {
  const TempFolder temp;
  const RepairCase of =
      made_case(temp, "gdn", qwen3_5(R"(["in_proj_qkv", "in_proj_z", "out_proj"])", false),
                "../families/qwen3_5_moe", "sglang");
  ConvertOptions convert_options;
  convert_options.base = of.options.base;
  convert_options.engine = "sglang";
  convert_options.verify = true;
  const ConvertResult made = convert(of.adapter(), of.out(), convert_options);
  CHECK(made.verified > 0);
  CHECK(above_information(validate({of.out()}, of.options)) == "");
  ValidateOptions numeric = of.options;
  numeric.engines.clear();
  numeric.numeric = true;
  numeric.source = of.adapter();
  CHECK(above_information(validate({of.out()}, numeric)) == "");
}

TEST_CASE("an up_proj of a model without gates is not told to add a gate") {
  const TempFolder temp;
  InitOptions init;
  init.base = "moelora/tiny-nemotron_h";
  init.rank = 4;
  init.targets = {"shared"};
  init.to = "peft-linear";
  init.random_b = true;
  const Json base = make_specimen("nemotron_h_per_expert").base_config;
  const Conversion fresh = make_adapter(init, make_model_spec(base, init.base));
  RepairCase of = on_disk(temp, "nemotron", base, fresh.config, fresh.tensors);
  of.options.engines = {"sglang"};
  const Validation found = of.validate();
  const auto findings = findings_of(found, "SGL005");
  REQUIRE(!findings.empty());
  CHECK(findings.front()->fix.find("Add gate_proj") == std::string::npos);
  CHECK(findings.front()->fix.find("has no gate_proj") != std::string::npos);
  CHECK(!findings.front()->repair);
  ConvertOptions options;
  options.base = of.options.base;
  options.engine = "sglang";
  try {
    convert(of.adapter(), of.out(), options);
    FAIL("was converted");
  } catch (const Error& error) {
    CHECK(error.hint().find("has no gate_proj") != std::string::npos);
  }
}

TEST_CASE("embeddings that --drop leaves out do not fail the verification") {
  const TempFolder temp;
  const ModelSpec spec = catalogue_base("qwen3_moe").spec;
  MadeAdapter made(R"({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["o_proj",
                       "embed_tokens"]})");
  const LinearSpec* o = spec.find_linear("model.layers.0.self_attn.o_proj");
  REQUIRE(o != nullptr);
  made.pair(o->memory, {2, o->in}, {o->out, 2});
  made.add("base_model.model.model.embed_tokens.lora_embedding_A", {2, spec.vocab});
  made.add("base_model.model.model.embed_tokens.lora_embedding_B", {spec.hidden, 2});
  const RepairCase of = made_case(temp, "embeddings", made, "qwen3_moe", "");
  for (const char* engine : {"sglang", "vllm", "peft"}) {
    CAPTURE(engine);
    ConvertOptions options;
    options.base = of.options.base;
    options.engine = engine;
    options.drop = {"embeddings"};
    options.verify = true;
    options.force = true;
    CHECK(convert(of.adapter(), of.out(), options).verified > 0);
  }
}

TEST_CASE("a conversion for another base writes that base's name") {
  const TempFolder temp;
  InitOptions init;
  init.base = "openai/gpt-oss-20b";
  init.rank = 1;
  init.targets = {"attention"};
  init.to = "peft-linear";
  init.random_b = true;
  init.dtype = DType::BF16;
  const Conversion fresh = make_adapter(init);
  const RepairCase of = on_disk(temp, "named", Json::object({}), fresh.config, fresh.tensors);
  ConvertOptions options;
  options.engine = "sglang";
  options.dry_run = true;
  const auto named = [&](const std::string& base) {
    options.base = base;
    const std::string config = convert(of.adapter(), of.out(), options).config;
    return *parse_json(config, "adapter_config.json").find("base_model_name_or_path");
  };
  CHECK(named("").as_string() == "openai/gpt-oss-20b");
  CHECK(named("lmsys/gpt-oss-20b-bf16").as_string() == "lmsys/gpt-oss-20b-bf16");
  CHECK(find_named_base("lmsys/gpt-oss-20b-bf16", {}, false));  // what MOD008 recommends
}

TEST_CASE("experts of unequal ranks, by rank_pattern, are given one rank for vLLM") {
  const TempFolder temp;
  Specimen made = make_specimen("qwen3_moe_per_expert");
  TensorMap& tensors = made.tensors();
  for (auto& [name, tensor] : tensors)
    if (name.find("experts.3.gate_proj") != std::string::npos)
      tensor = tensor.slice(name.find("lora_A") != std::string::npos ? 0 : 1, 0, 2);
  made.config().set("rank_pattern", Json::object({{"experts.3.gate_proj", 2}}));
  RepairCase of = on_disk(temp, "ranks", made.base_config, made.config(), tensors);
  for (const char* engine : {"vllm@0.31", "vllm"}) {
    CAPTURE(engine);
    of.options.engines = {engine};
    const Validation found = of.validate();
    const auto findings = findings_of(found, "VLM006");
    REQUIRE(!findings.empty());
    REQUIRE(findings.front()->repair);
    CHECK(check_commands(of, found) > 0);
  }
}

TEST_CASE("shards on disk become one file, for every engine and for none") {
  const TempFolder temp;
  Specimen made = make_specimen("qwen3_moe_per_expert");
  RepairCase of =
      on_disk(temp, "shards", made.base_config, made.config(), made.tensors(), 64 << 10);
  REQUIRE(fs::exists(of.adapter() + "/adapter_model.safetensors.index.json"));
  for (const char* engine : {"", "sglang", "vllm", "peft"}) {
    CAPTURE(engine);
    of.options.engines.clear();
    if (*engine != 0) of.options.engines = {engine};
    const Validation found = of.validate();
    const auto findings = findings_of(found, "FMT004");
    REQUIRE(findings.size() == 1);
    REQUIRE(findings.front()->repair);
    CHECK(check_commands(of, found) > 0);
    CHECK(!fs::exists(of.out() + "/adapter_model.safetensors.index.json"));
  }
}
