// Server options of 0.5.19 to 0.5.23 that end the start, by the code of those releases, and what
// they leave alone.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/engine/engine.h"
#include "lib/model/model_builder.h"
#include "tests/engine/served_from_folder.h"
#include "tests/engine/sglang_oracle.h"

using namespace moelora;
using namespace moelora::test;

namespace {

struct Start {
  std::string family = "qwen3_moe", adapter = "per_expert", version = "0.5.23";
  std::vector<std::string> options = {};
  Json base = {};  // keys of the base's config.json that differ
};

ServerPlan plan(const Start& start) {
  const EngineChoice choice = parse_engine("sglang@" + start.version);
  ServerOptions options;
  for (const std::string& pair : start.options) set_server_option(options, pair, {&choice, 1});
  OracleBase base = sglang_base(start.family);
  if (start.base.is(Json::Kind::object))
    for (const auto& [key, value] : start.base.members()) base.config.set(key, value);
  if (base.config.find("architectures") != nullptr)
    base.spec = make_model_spec(base.config, start.family);
  const ServedAdapter served = served_from_folder(sglang_folder(start.family, start.adapter));
  return choice.engine->plan({{&served, 1}, base.spec, base.config, options, choice.version});
}

// What the start says for the options; "served" where nothing does.
std::string said(const Start& start) {
  const ServerPlan all = plan(start);
  for (const PlanEvent& event : all.server) return refusal_text(*event.refusal);
  const PlanEvent* refusal = all.adapters.at(0).first_refusal();
  return refusal == nullptr ? "served" : refusal_text(*refusal->refusal);
}

const std::string kPair =
    "ValueError: Routed MoE LoRA must pair --lora-backend triton_v2 with --moe-runner-backend "
    "lora_cutedsl, lora_triton, or lora_marlin; mixing new and legacy LoRA backends is unsupported";
const std::string kV2 = "lora-backend=triton_v2", kRunner = "moe-runner-backend=lora_triton";

}  // namespace

TEST_CASE("triton_v2 and the runners named lora_* go together, since 0.5.23") {
  CHECK(said({.options = {kV2, kRunner}}) == "served");
  CHECK(said({.options = {kV2}}) == kPair);
  CHECK(said({.options = {kV2, "moe-runner-backend=triton"}}) == kPair);
  CHECK(said({.options = {kRunner}}) ==
        "ValueError: --moe-runner-backend lora_triton requires --lora-backend triton_v2");
  CHECK(said({.version = "0.5.22", .options = {kV2, kRunner}}) ==
        "ArgumentError: argument --moe-runner-backend: invalid choice: 'lora_triton'");
  // Attention alone wraps no expert: the backend serves it, and the runner has nothing to do.
  CHECK(said({.adapter = "attention_only", .options = {kV2}}) == "served");
  CHECK(said({.adapter = "attention_only", .options = {kV2, kRunner}}) ==
        "ValueError: --moe-runner-backend lora_triton requires the LoRA target modules to include "
        "gate_up_proj and down_proj; this adapter leaves the MoE experts without a runner");
}

TEST_CASE("the runners named lora_* refuse bases, devices and servers that they cannot do") {
  const auto with = [](const std::string& option) {
    return said({.options = {kV2, kRunner, option}});
  };
  CHECK(said({.family = "gpt_oss", .options = {kV2, kRunner}}) ==
        "NotImplementedError: MoE LoRA providers carry no expert biases; this layer has them");
  CHECK(said({.options = {kV2, kRunner}, .base = Json::object({{"dtype", "float16"}})}) ==
        "NotImplementedError: MoE LoRA on an unquantized layer requires resident BF16 weights");
  CHECK(with("quantization=awq") ==
        "ValueError: --moe-runner-backend lora_triton supports unquantized BF16, 128-block FP8 and "
        "ModelOpt NVFP4 MoE, got --quantization awq");
  CHECK(with("quantization=fp8") ==
        "NotImplementedError: MoE LoRA on FP8 requires 128-block weight quantization; per-tensor "
        "and MXFP8 layers are unsupported");
  CHECK(with("quantization=modelopt_fp4") ==
        "ValueError: --moe-runner-backend lora_triton cannot run ModelOpt NVFP4 MoE; use "
        "--moe-runner-backend lora_marlin");
  CHECK(with("moe-a2a-backend=deepep") ==
        "ValueError: --moe-runner-backend lora_triton requires Standard dispatch, got "
        "--moe-a2a-backend deepep");
  CHECK(with("moe-a2a-backend=none") == "served");
  CHECK(with("enable-eplb=on") ==
        "ValueError: --moe-runner-backend lora_triton currently requires trivial expert placement "
        "without EPLB or redundant experts");
  CHECK(with("enable-two-batch-overlap=on") ==
        "ValueError: --moe-runner-backend lora_triton does not yet support two-batch overlap");
}

TEST_CASE("a runner without LoRA is refused in the words of its release") {
  for (const auto& [version, text] :
       {std::pair{"0.5.18", "LoRA MoE not supported for backend MoeRunnerBackend.TRITON_KERNELS"},
        {"0.5.19", "UnquantizedFusedMoEMethod does not expose quant info for 'triton_kernel'"}})
    CHECK(said({.version = version, .options = {"moe-runner-backend=triton_kernel"}}) ==
          fmt::format("NotImplementedError: {}", text));
}

TEST_CASE("DP attention takes pinned adapters since 0.5.21, in groups of one rank since 0.5.22") {
  const std::vector<std::string> two = {"tp-size=2", "attn-dp-size=2"};
  CHECK(said({.version = "0.5.20", .options = two}) == "served");
  CHECK(said({.version = "0.5.21", .options = two}) ==
        "AssertionError: DP-attention LoRA requires pinned adapters");
  CHECK(said({.options = {"tp-size=2", "dp-size=2", "enable-dp-attention=on"}}) ==
        "AssertionError: DP-attention LoRA requires pinned adapters");
  CHECK(said({.options = {"tp-size=2", "dp-size=2"}}) == "served");  // two whole servers
  CHECK(said({.options = {"tp-size=2", "attn-dp-size=2", "pinned=on"}}) == "served");
  CHECK(said({.version = "0.5.21",
              .options = {"tp-size=4", "attn-dp-size=2", "pinned=on", "ep-size=2"}}) == "served");
  CHECK(said({.options = {"tp-size=4", "attn-dp-size=2", "pinned=on", "ep-size=2"}}) ==
        "ValueError: LoRA with DP attention requires --attn-dp-size equal to --tp-size (got "
        "attention TP size 2 and attention CP size 1)");
}

TEST_CASE("replicated queries and LoRA on them exclude each other since 0.5.23") {
  const std::string option = "dcp-replicate-q-proj=on";
  CHECK(said({.options = {option}}) == "served");  // experts alone
  CHECK(said({.adapter = "attention_only", .version = "0.5.22", .options = {option}}) == "served");
  CHECK(said({.adapter = "attention_only", .options = {option}}) ==
        "ValueError: Replicated-Q decode is incompatible with LoRA targets ['qkv_proj']; pass "
        "--no-dcp-replicate-q-proj to use the local-head Q path.");
}

TEST_CASE("a class that SGLang does not have is not judged by its relatives") {
  const auto of = [](const char* name) {
    return Start{.base = Json::object({{"architectures", Json::strings({name})}})};
  };
  CHECK(said(of("Qwen3MoeForCausalLM")) == "served");
  const ServerPlan unknown = plan(of("Qwen3MoeForSequenceClassification"));
  CHECK(unknown.adapters.empty());
  CHECK(unknown.not_known ==
        "Qwen3MoeForSequenceClassification is no class of SGLang that is known here (that of the "
        "family qwen3_moe is Qwen3MoeForCausalLM)");
  CHECK(plan(of("JambaForCausalLM"))
            .not_known.starts_with("SGLang has no class JambaForCausalLM: it falls back"));
}

TEST_CASE("Qwen2-MoE's shared expert has a buffer of its own width since 0.5.21") {
  const Start old{.family = "qwen2_moe", .adapter = "hand.stacked3d", .version = "0.5.20"},
      now{.family = "qwen2_moe", .adapter = "hand.stacked3d", .version = "0.5.21"};
  CHECK(said(old).starts_with("ValueError: LoRA B output dim "));
  CHECK(said(now) == "served");
  const auto rows = [](const ServerPlan& from) {
    for (const MemoryRow& row : from.memory.rows)
      if (row.buffer == "gate_up_proj.B") return row.shape.at(0);
    return int64_t{0};
  };
  CHECK(rows(plan(old)) == 192);
  CHECK(rows(plan(now)) == 80);
}
