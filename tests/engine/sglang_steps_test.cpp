// Steps of SGLang's loading that no adapter of the archive takes: by the oracle's notes, and by the
// code of its releases.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>

#include "lib/engine/engine.h"
#include "lib/engine/sglang/causes.h"
#include "tests/engine/sglang_oracle.h"

using namespace moelora;
using namespace moelora::test;

namespace {

namespace why = sglang::cause;

constexpr const char* kPrefix = "base_model.model.model.layers.";

// An adapter of headers: r 4, lora_alpha 8.
class Made {
 public:
  explicit Made(std::vector<std::string> targets) {
    adapter_.name = "made";
    adapter_.folder = "made";
    adapter_.has_config = true;
    adapter_.config = Json::object({{"peft_type", "LORA"}, {"r", 4}, {"lora_alpha", 8}});
    adapter_.config.set("target_modules", Json::strings(targets));
    adapter_.files.push_back({"adapter_model.safetensors", {}});
  }

  Made& set(const std::string& name, Shape shape, DType dtype = DType::F32) {
    auto& tensors = adapter_.files[0].tensors;
    const auto at = std::find_if(tensors.begin(), tensors.end(),
                                 [&](const TensorHeader& tensor) { return tensor.name == name; });
    if (at == tensors.end())
      tensors.push_back({name, dtype, std::move(shape)});
    else
      at->shape = std::move(shape);
    return *this;
  }

  // lora_A [4, in] and lora_B [out, 4] of a module below "layers.".
  Made& pair(const std::string& module, int64_t in, int64_t out) {
    set(kPrefix + module + ".lora_A.weight", {4, in});
    return set(kPrefix + module + ".lora_B.weight", {out, 4});
  }

  Made& attention(int layer) {
    const std::string stem = fmt::format("{}.self_attn.", layer);
    pair(stem + "q_proj", 64, 64).pair(stem + "k_proj", 64, 32).pair(stem + "v_proj", 64, 32);
    return pair(stem + "o_proj", 64, 64);
  }

  Made& expert(int layer, int expert, int64_t width) {
    const std::string stem = fmt::format("{}.mlp.experts.{}.", layer, expert);
    pair(stem + "gate_proj", 64, width).pair(stem + "up_proj", 64, width);
    return pair(stem + "down_proj", width, 64);
  }

  Json& config() { return adapter_.config; }

  AdapterPlan plan(const std::string& family, const std::string& engine = "sglang",
                   ServerOptions options = {}) {
    auto& tensors = adapter_.files[0].tensors;
    std::sort(tensors.begin(), tensors.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    const OracleBase& base = sglang_base(family);
    const EngineChoice choice = parse_engine(engine);
    ServerPlan plan =
        choice.engine->plan({{&adapter_, 1}, base.spec, base.config, options, choice.version});
    REQUIRE(plan.server.empty());
    return plan.adapters.at(0);
  }

 private:
  ServedAdapter adapter_;
};

const std::vector<std::string> kAttention = {"q_proj", "k_proj", "v_proj", "o_proj"};
const std::vector<std::string> kExperts = {"gate_proj", "up_proj", "down_proj"};

std::string refused(const Cause& cause, const std::string& text) {
  return fmt::format("{}: {}", cause.words, text);
}

std::string refusal(const AdapterPlan& plan) {
  const PlanEvent* event = plan.first_refusal();
  return event == nullptr ? "served" : refused(*event->cause, refusal_text(*event->refusal));
}

Fate fate_of(const AdapterPlan& plan, const std::string& ending) {
  for (const TensorFate& fate : plan.fates)
    if (fate.tensor.ends_with(ending)) return fate.fate;
  FAIL("no tensor " << ending);
  return Fate::unused;
}

const PlanEvent* event_of(const AdapterPlan& plan, const Cause& cause) {
  for (const PlanEvent& event : plan.events)
    if (event.cause == &cause) return &event;
  return nullptr;
}

std::string shape_text(const char* buffer, const char* weight) {
  return fmt::format(
      "AssertionError: LoRA buffer shape torch.Size([{}]) does not match weight shape "
      "torch.Size([{}]).",
      buffer, weight);
}

ServerOptions tp(int64_t ranks, int64_t ep = 1) {
  ServerOptions out;
  out.tp = ranks;
  out.ep = ep;
  return out;
}

}  // namespace

TEST_CASE("a q_proj with too many rows is cut, and its k and v get rows of others") {
  const AdapterPlan plan =
      Made(kAttention).attention(0).pair("0.self_attn.q_proj", 64, 80).plan("gpt_oss");
  CHECK(refusal(plan) == "served");
  // q's own surplus stands where k begins.
  CHECK(fate_of(plan, "q_proj.lora_B.weight") == Fate::misplaced);
  CHECK(fate_of(plan, "k_proj.lora_B.weight") == Fate::misplaced);
  CHECK(fate_of(plan, "v_proj.lora_B.weight") == Fate::misplaced);
  CHECK(fate_of(plan, "q_proj.lora_A.weight") == Fate::used);
  CHECK(fate_of(plan, "o_proj.lora_B.weight") == Fate::used);
  REQUIRE(event_of(plan, why::silent_truncation) != nullptr);
  CHECK(event_of(plan, why::silent_truncation)->tensors.size() == 3);
}

TEST_CASE("a dense gate_proj with too many rows shifts up_proj") {
  const AdapterPlan plan = Made(kExperts)
                               .pair("0.mlp.gate_proj", 64, 56)
                               .pair("0.mlp.up_proj", 64, 48)
                               .pair("0.mlp.down_proj", 48, 64)
                               .plan("qwen3_dense");
  CHECK(refusal(plan) == "served");
  CHECK(fate_of(plan, "up_proj.lora_B.weight") == Fate::misplaced);
  CHECK(fate_of(plan, "down_proj.lora_B.weight") == Fate::used);
}

TEST_CASE("experts with too many rows of gate and up: GPT-OSS cuts them, Qwen3-MoE refuses them") {
  Made gpt_oss(kExperts), qwen(kExperts);
  for (int e = 0; e < 4; ++e) gpt_oss.expert(0, e, 48);
  for (int e = 0; e < 8; ++e) qwen.expert(0, e, 24);
  for (const char* part : {"gate_proj", "up_proj"}) {
    gpt_oss.pair(fmt::format("0.mlp.experts.1.{}", part), 64, 56);
    qwen.pair(fmt::format("0.mlp.experts.1.{}", part), 64, 32);
  }
  const AdapterPlan cut = gpt_oss.plan("gpt_oss");
  CHECK(refusal(cut) == "served");
  CHECK(fate_of(cut, "experts.1.gate_proj.lora_B.weight") == Fate::cut);
  CHECK(fate_of(cut, "experts.1.up_proj.lora_B.weight") == Fate::cut);
  CHECK(fate_of(cut, "experts.0.up_proj.lora_B.weight") == Fate::used);
  CHECK(refusal(qwen.plan("qwen3_moe")) ==
        refused(why::shape_mismatch, shape_text("48, 4", "64, 4")));
}

TEST_CASE("a lora_A that is too wide is refused, but cut where the layer splits its input") {
  const AdapterPlan q = Made(kAttention)
                            .attention(0)
                            .set(std::string(kPrefix) + "0.self_attn.q_proj.lora_A.weight", {4, 80})
                            .set(std::string(kPrefix) + "0.self_attn.k_proj.lora_A.weight", {4, 80})
                            .set(std::string(kPrefix) + "0.self_attn.v_proj.lora_A.weight", {4, 80})
                            .plan("qwen3_moe");
  CHECK(refusal(q) == refused(why::shape_mismatch, shape_text("12, 64", "12, 80")));
  const AdapterPlan o = Made(kAttention)
                            .attention(0)
                            .set(std::string(kPrefix) + "0.self_attn.o_proj.lora_A.weight", {4, 80})
                            .plan("qwen3_moe");
  CHECK(refusal(o) == "served");
  CHECK(fate_of(o, "o_proj.lora_A.weight") == Fate::cut);
}

TEST_CASE("factors of some experts only: the others are served without any") {
  Made some(kExperts);
  for (int e : {0, 2}) some.expert(0, e, 48);
  for (int e = 0; e < 4; ++e) some.expert(1, e, 48);
  const AdapterPlan plan = some.plan("gpt_oss");
  CHECK(refusal(plan) == "served");
  REQUIRE(event_of(plan, why::missing_experts) != nullptr);
  CHECK(event_of(plan, why::missing_experts)->tensors.size() == 2 * 3);  // A of each in layer 0
}

TEST_CASE("three stacked in the server's order and one by one at the same time") {
  Made mixed(kExperts);
  for (int e = 0; e < 4; ++e) mixed.expert(0, e, 48);
  const std::string stem = std::string(kPrefix) + "0.mlp.experts.down_proj.";
  mixed.set(stem + "lora_A.weight", {4, 4, 48}).set(stem + "lora_B.weight", {4, 64, 4});
  // Digits sort before letters, so the stacked tensor comes last and takes the place of all.
  const AdapterPlan plan = mixed.plan("gpt_oss");
  CHECK(refusal(plan) == "served");
  CHECK(fate_of(plan, "experts.down_proj.lora_A.weight") == Fate::used);
  CHECK(fate_of(plan, "experts.2.down_proj.lora_A.weight") == Fate::unused);
}

TEST_CASE("each rank has at least one head of k and v") {
  const AdapterPlan plan = Made(kAttention).attention(0).plan("qwen3_moe", "sglang", tp(4));
  CHECK(refusal(plan) == "served");
  CHECK(plan.events.empty());
  // One row of v too few is missed by the last ranks only.
  const AdapterPlan few = Made(kAttention)
                              .attention(0)
                              .pair("0.self_attn.v_proj", 64, 31)
                              .plan("qwen3_moe", "sglang", tp(4));
  CHECK(refusal(few) == refused(why::shape_mismatch, shape_text("48, 4", "47, 4")));
}

TEST_CASE("an expert beyond the model's is refused, and with expert parallelism dropped") {
  Made made(kExperts);
  for (int e = 0; e < 9; ++e) made.expert(0, e, 24);
  CHECK(refusal(made.plan("qwen3_moe")) ==
        refused(why::expert_out_of_range,
                "IndexError: index 8 is out of bounds for dimension 1 with size 8"));
  const AdapterPlan parallel = made.plan("qwen3_moe", "sglang", tp(2, 2));
  CHECK(refusal(parallel) == "served");
  CHECK(fate_of(parallel, "experts.8.up_proj.lora_B.weight") == Fate::unused);
  CHECK(event_of(parallel, why::expert_out_of_range) != nullptr);
  CHECK(fate_of(parallel, "experts.7.up_proj.lora_B.weight") == Fate::used);
}

TEST_CASE("rsLoRA and patterns change no scale at the server") {
  Made rslora = Made(kAttention).attention(0);
  rslora.config().set("use_rslora", true);
  const AdapterPlan weak = rslora.plan("gpt_oss");
  REQUIRE(event_of(weak, why::rslora_ignored) != nullptr);
  CHECK(event_of(weak, why::rslora_ignored)->effect == Effect::wrong_scale);
  CHECK(event_of(weak, why::rslora_ignored)->detail.find("2 times too weak") != std::string::npos);
  for (const char* key :
       {"o_proj", "self_attn.o_proj", "model.layers.0.self_attn.o_proj", "o_.*"}) {
    CAPTURE(key);
    Made pattern = Made(kAttention).attention(0);
    pattern.config().set("alpha_pattern", Json::object({{key, 16}}));
    const AdapterPlan plan = pattern.plan("gpt_oss");
    REQUIRE(event_of(plan, why::patterns_ignored) != nullptr);
    CHECK(event_of(plan, why::patterns_ignored)->tensors.size() == 2);
  }
  Made dead = Made(kAttention).attention(0);
  dead.config().set("alpha_pattern", Json::object({{"proj", 16}, {"o_proj", 8}, {"layers.0", 4}}));
  CHECK(dead.plan("gpt_oss").events.empty());
}

TEST_CASE("what releases have changed is as it was in them") {
  Made experts(kExperts);
  for (int e = 0; e < 8; ++e) experts.expert(0, e, 24);
  CHECK(refusal(experts.plan("qwen3_moe", "sglang@0.5.10rc0")) ==
        refused(why::moe_buffer_missing, "KeyError: 'gate_up_proj_moe'"));
  CHECK(refusal(experts.plan("qwen3_moe", "sglang@0.5.10")) == "served");
  // One GPU: cut since 0.5.11, refused before.
  Made wide = Made(kAttention).attention(0).pair("0.self_attn.v_proj", 64, 48);
  CHECK(refusal(wide.plan("qwen3_moe", "sglang@0.5.11")) == "served");
  CHECK(refusal(wide.plan("qwen3_moe", "sglang@0.5.10")) ==
        refused(why::shape_mismatch, shape_text("128, 4", "144, 4")));
  // DoRA.
  Made dora = Made(kAttention).attention(0);
  dora.config().set("use_dora", true);
  CHECK(refusal(dora.plan("qwen3_moe", "sglang@0.5.11"))
            .starts_with(refused(why::dora, "RuntimeError")));
  const AdapterPlan plain = dora.plan("qwen3_moe", "sglang@0.5.10");
  CHECK(refusal(plain) == "served");
  CHECK(event_of(plain, why::dora)->effect == Effect::wrong_values);
  // Multi-head latent attention came in two steps.
  Made mla({"q_b_proj"});
  mla.pair("0.self_attn.q_b_proj", 24, 96);
  CHECK(refusal(mla.plan("deepseek_v3", "sglang@0.5.11")) ==
        refused(why::w_names_in_targets,
                "NotImplementedError: get_hidden_dim not implemented for q_b_proj"));
  CHECK(refusal(mla.plan("deepseek_v3", "sglang@0.5.12")) == "served");
  // A rank below the pool's.
  ServerOptions high;
  high.max_lora_rank = 8;
  CHECK(event_of(experts.plan("qwen3_moe", "sglang@0.5.10", high), why::rank_over_limit) !=
        nullptr);
  CHECK(event_of(experts.plan("qwen3_moe", "sglang@0.5.11", high), why::rank_over_limit) ==
        nullptr);
}

TEST_CASE("numbered shared experts end the first request since 0.5.23") {
  Made numbered(kExperts);
  for (const char* part : {"gate_proj", "up_proj"})
    numbered.pair(fmt::format("1.mlp.shared_experts.0.{}", part), 64, 24);
  numbered.pair("1.mlp.shared_experts.0.down_proj", 24, 64);
  CHECK(refusal(numbered.plan("deepseek_v3", "sglang@0.5.23"))
            .starts_with("numbered names of shared experts: ValueError: Cannot load LoRA weight "
                         "'base_model.model.model.layers.1.mlp.shared_experts.0."));
  CHECK(event_of(numbered.plan("deepseek_v3", "sglang@0.5.22"), why::numbered_shared_experts) ==
        nullptr);
}

TEST_CASE("what should_apply_lora() of the class leaves out is not wrapped since 0.5.22") {
  const OracleBase& base = sglang_base("gpt_oss");
  const sglang::ModelClass model = sglang::make_model_class(base.spec, base.config);
  const auto wrapped = [&](const char* version) {
    return sglang::wrap_modules(model, sglang::features_of(*EngineVersion::parse(version)),
                                {"qkv_proj", "router", "gate_up_proj", "down_proj"})
        .layers[0]
        .size();
  };
  CHECK(wrapped("0.5.21") == 4);  // qkv_proj, the router, and the experts' two buffers
  CHECK(wrapped("0.5.22") == 3);
}
