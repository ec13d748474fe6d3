// What stands in vLLM's source of its classes, row by row (vllm 0.27.0 to 0.33.0 of PyPI): how a
// module is wrapped, which names it takes, and since which release.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "lib/base/dotted_path.h"
#include "lib/engine/server_class.h"
#include "lib/engine/vllm/causes.h"
#include "lib/engine/vllm/server/module_buffers.h"
#include "lib/engine/vllm/server/server.h"
#include "lib/model/base_model.h"
#include "lib/model/model_builder.h"
#include "tests/adapter/readme_section.h"

using namespace moelora;

namespace {

using vllm::Kind;
using vllm::Module;
using vllm::Server;

// A base of the families' data and a version of vLLM.
struct Start {
  BaseModel base;
  EngineVersion version;

  explicit Start(const std::string& family, const std::string& release = "0.33")
      : base(open_base(std::string(MOELORA_TEST_DATA) + "/families/" + family)),
        version(*EngineVersion::parse(release)) {}

  Server server(const ServerOptions& options = {}) const {
    return vllm::make_server({{}, base.spec, base.config, options, version});
  }
  // Of an adapter of these modules, each a pair of zeros in the file.
  ServerPlan plan(const std::vector<std::string>& modules) const {
    ServedAdapter adapter;
    adapter.name = adapter.folder = "adapter";
    adapter.has_config = true;
    adapter.config = parse_json(R"({"r": 2, "lora_alpha": 2, "target_modules": []})", "config");
    WeightFile& file = adapter.files.emplace_back();
    file.name = "adapter_model.safetensors";
    for (const std::string& module : modules)
      for (const char* side : {".lora_A.weight", ".lora_B.weight"})
        file.tensors.push_back({"base_model.model." + module + side, DType::BF16, {2, 2}});
    return find_engine("vllm")->plan({{&adapter, 1}, base.spec, base.config, {}, version});
  }
};

std::string_view kind_name(Kind kind) {
  switch (kind) {
    case Kind::replicated:
      return "replicated";
    case Kind::column:
      return "column";
    case Kind::row:
      return "row";
    case Kind::merged:
      return "merged";
    case Kind::variable:
      return "variable";
    case Kind::joined:
      return "joined";
    case Kind::unknown:
      return "unknown";
    case Kind::embedding:
      return "embedding";
    case Kind::logits:
      return "logits";
    case Kind::experts:
      return "experts";
    case Kind::stacked_experts:
      return "stacked experts";
  }
  return "";
}

// "row: 64 -> 32" of a module; "merged: q_proj k_proj v_proj" of a packed one; "" where it is none.
std::string text_of(const Server& server, const std::string& name) {
  for (const Module& module : server.modules) {
    if (module.name != name) continue;
    std::string out(kind_name(module.kind));
    if (module.is_experts()) return out;
    for (const vllm::Child& child : module.children)
      out += module.packed ? " " + std::string(leaf_of(child.name)) : "";
    for (const int64_t rows : module.slices) out += fmt::format(" {}", rows);
    return out;
  }
  return "";
}

struct Row {
  const char *base, *module, *text;
};

// Each from the class's __init__ and packed_modules_mapping; the file is under
// vllm/model_executor/models unless it says vllm/models.
constexpr Row kRows[] = {
    // llama.py: QKVParallelLinear of three, MergedColumnParallelLinear of two, RowParallelLinear
    {"llama", "model.layers.0.self_attn.qkv_proj", "merged q_proj k_proj v_proj"},
    {"llama", "model.layers.0.mlp.gate_up_proj", "merged gate_proj up_proj"},
    {"llama", "model.layers.0.mlp.down_proj", "row"},
    {"llama", "model.embed_tokens", "embedding"},
    // mistral.py: embedding_modules = {}
    {"mistral", "model.embed_tokens", ""},
    {"mistral", "model.layers.1.self_attn.o_proj", "row"},
    // phi3.py: packed_modules_mapping names each Linear after itself
    {"phi3", "model.layers.0.self_attn.qkv_proj", "joined 60 20 20"},
    {"phi3", "model.layers.0.mlp.gate_up_proj", "joined 84 84"},
    // glm4.py: packs gate_proj and up_proj, though the base has one Linear
    {"glm4", "model.layers.0.mlp.gate_up_proj", "merged gate_proj up_proj"},
    // qwen3_5.py
    {"qwen3_5_text", "model.layers.0.linear_attn.in_proj_ba", "merged in_proj_b in_proj_a"},
    // mistral3.py, gemma3_mm.py: the text model is at language_model
    {"mistral3", "language_model.model.layers.0.self_attn.qkv_proj", "merged q_proj k_proj v_proj"},
    {"gemma3", "language_model.model.layers.0.mlp.down_proj", "row"},
    // gemma4.py: GateLinear, ReplicatedLinear, ColumnParallelLinear(gather_output=True)
    {"gemma4_moe_text", "model.layers.0.router.proj", "replicated"},
    {"gemma4_moe_text", "model.layers.0.experts", "experts"},
    {"gemma4_text_per_layer", "model.layers.0.per_layer_input_gate", "replicated"},
    {"gemma4_text_per_layer", "model.layers.0.per_layer_projection", "replicated"},
    {"gemma4_text_per_layer", "model.per_layer_model_projection", "column"},
    // transformers/base.py: embedding_modules has embed_tokens alone
    {"smollm3", "model.embed_tokens", "embedding"},
    {"smollm3", "lm_head", ""},
    // vllm/models/deepseek_v32/attention.py
    {"glm_moe_dsa", "model.layers.0.self_attn.fused_qkv_a_proj",
     "merged q_a_proj kv_a_proj_with_mqa"},
    {"glm_moe_dsa", "model.layers.0.self_attn.indexer.wq_b", "replicated"},
    {"glm_moe_dsa", "model.layers.0.self_attn.indexer.wk", ""},
    // glm4_moe_lite.py by deepseek_v2.py
    {"glm4_moe_lite", "model.layers.0.self_attn.q_b_proj", "column"},
    // qwen3_omni_moe_thinker.py: is_3d_moe_weight
    {"qwen3_omni_moe", "language_model.model.layers.0.mlp.experts", "stacked experts"},
    // qwen3_vl_moe.py: Qwen3MoeLLMForCausalLM inherits embedding_modules
    {"qwen3_vl_moe", "language_model.model.embed_tokens", "embedding"},
    {"qwen3_vl_moe", "language_model.lm_head", "logits"},
    // granitemoeshared.py: input_linear is in no mapping, so that no LoRA layer fits it
    {"granitemoeshared", "model.layers.0.block_sparse_moe.gate", "replicated"},
    {"granitemoeshared", "model.layers.0.shared_mlp.input_linear", ""},
    {"granitemoeshared", "model.layers.0.shared_mlp.output_linear", "row"},
    // granitemoehybrid.py, layers/mamba/mamba_mixer2.py: there it is, and in_proj has five parts
    {"granitemoehybrid", "model.layers.0.mamba.out_proj", "row"},
    // afmoe.py: gate_proj of the attention is a Linear of its own; gate is mlp.gate
    {"afmoe", "model.layers.0.self_attn.gate_proj", "column"},
    {"afmoe", "model.layers.1.mlp.gate", "replicated"},
    // hy_v3.py: shared_mlp
    {"hy_v3", "model.layers.1.mlp.shared_mlp.gate_up_proj", "merged gate_proj up_proj"},
    // AXK1.py
    {"axk1", "model.layers.0.self_attn.fused_qkv_a_proj", "merged q_a_proj kv_a_proj_with_mqa"},
    // vllm/models/qwen4_exp/nvidia: hyperconnection.py, ple_layer.py, qsa.py
    {"qwen4_exp_text", "model.layers.0.attn_hyper_connection.input_mix_weight_down_block_inject",
     "merged input_mix_weight_down block_inject_weight"},
    {"qwen4_exp_text", "model.layers.0.attn_hyper_connection.input_mix_weight_up", "replicated"},
    {"qwen4_exp_text", "model.hyper_connection_mixer.input_mix_weight_down", "replicated"},
};

const PlanEvent* event(const AdapterPlan& plan, const Cause& cause) {
  for (const PlanEvent& entry : plan.events)
    if (entry.cause == &cause) return &entry;
  return nullptr;
}

}  // namespace

// Which of vLLM's classes are known, and how; in REFERENCE.md. MOELORA_UPDATE=1 writes it.
TEST_CASE("REFERENCE.md lists vLLM's classes") {
  const JsonView facts = engine_facts("vllm");
  std::string run, read, without, none;
  const auto add = [](std::string& list, const JsonView& entry) {
    list += (list.empty() ? "" : ", ") + entry.at("name").string();
  };
  for (const JsonView& entry : facts.at("classes").items())
    add(entry.find("read_in") ? read : run, entry);
  for (const JsonView& entry : facts.at("classes_without_lora").items()) add(without, entry);
  for (const JsonView& entry : facts.at("out_of_registry").items()) add(none, entry);
  check_reference_section("vllm classes", fmt::format("| known by | classes |\n|---|---|\n"
                                                      "| running them | {} |\n"
                                                      "| reading vLLM's source alone | {} |\n"
                                                      "| reading: no LoRA, in some releases at "
                                                      "least | {} |\n"
                                                      "| reading: in no release | {} |\n",
                                                      run, read, without, none));
}

TEST_CASE("modules are wrapped as vLLM's source builds them") {
  for (const Row& row : kRows) {
    CAPTURE(std::string(row.base));
    CAPTURE(std::string(row.module));
    CHECK(text_of(Start(row.base).server(), row.module) == row.text);
  }
}

TEST_CASE("values that are the keys have a slot of their own in qkv_proj") {
  Start start("gemma4_moe_text");
  start.base.config.set("attention_k_eq_v", Json(true));
  start.base.spec = make_model_spec(start.base.config, "config.json");
  const Server server = start.server();
  size_t without = 0;
  for (const Module& module : server.modules) {
    if (leaf_of(module.name) != "qkv_proj") continue;
    REQUIRE(module.children.size() == 3);
    if (module.children[2].linear != nullptr) continue;
    ++without;
    CHECK(module.children[2].out == module.children[1].out);
  }
  REQUIRE(without > 0);
  // Transformers takes the values from k_proj with its LoRA, vLLM from a copy of the base's.
  const std::string keys = *vllm::keys_as_values(server.modules).begin(),
                    values = sibling(keys, "v_proj");
  const auto partial = [&](const std::vector<std::string>& modules) {
    const ServerPlan plan = start.plan(modules);
    const PlanEvent* found = event(plan.adapters.at(0), vllm::cause::silent_partial_copy);
    return found != nullptr && found->detail.find("to the keys alone") != std::string::npos;
  };
  CHECK(partial({keys}));
  CHECK_FALSE(partial({keys, values}));
  CHECK_FALSE(partial({sibling(keys, "q_proj")}));
}

TEST_CASE("a joined Linear has one buffer, and a rank its part of each slice") {
  ServerOptions options;
  options.tp = 2;
  options.max_lora_rank = 8;
  const Start start("phi3");
  const Server server = start.server(options);
  for (const Module& module : server.modules) {
    if (module.kind != Kind::joined || module.layer != 0) continue;
    CAPTURE(module.name);
    const std::vector<vllm::Buffer> buffers = vllm::module_buffers(server, module);
    REQUIRE(buffers.size() == 2);
    CHECK(buffers[0].shape == Shape{8, 60});
    CHECK(buffers[1].shape == Shape{leaf_of(module.name) == "qkv_proj" ? 50 : 84, 8});
  }
}

TEST_CASE("a name that a class accepts and wraps nothing for is said to be unused") {
  const ServerPlan plan =
      Start("granitemoeshared").plan({"model.layers.0.shared_mlp.input_linear"});
  REQUIRE(plan.adapters.size() == 1);
  CHECK(plan.adapters[0].first_refusal() == nullptr);
  CHECK(event(plan.adapters[0], vllm::cause::silent_no_op) != nullptr);
}

TEST_CASE("names that a class does not take are refused in the server's words") {
  const auto refusal = [](const char* base, const char* module) {
    const ServerPlan plan = Start(base).plan({module});
    const PlanEvent* found = plan.adapters.at(0).first_refusal();
    return found == nullptr ? std::string() : found->refusal->text;
  };
  const std::string split = refusal("glm4", "model.layers.0.mlp.gate_up_proj");
  CHECK(split.find("'gate_proj', 'k_proj'") != std::string::npos);
  CHECK(split.find("received ['model.layers.0.mlp.gate_up_proj'") != std::string::npos);
  CHECK(refusal("glm4", "model.layers.0.mlp.gate_proj") == "");
  CHECK(refusal("smollm3", "lm_head").find("received ['lm_head'") != std::string::npos);
  CHECK(refusal("smollm3", "model.layers.0.mlp.up_proj") == "");
  CHECK(refusal("gemma3_text", "model.embed_tokens").find("'embed_tokens'") == std::string::npos);
  CHECK(refusal("gemma3_text", "model.embed_tokens").find("model.embed_tokens") !=
        std::string::npos);
  CHECK(refusal("granitemoehybrid", "model.layers.0.block_sparse_moe.experts.0.gate_proj")
            .find("'block_sparse_moe.experts.0.down_proj'") != std::string::npos);
  CHECK(refusal("deepseek_v32", "model.layers.0.self_attn.indexer.wk").find("indexer.wk'") !=
        std::string::npos);
}

TEST_CASE("a text model's names reach a wrapper's layers since 0.33, Mistral 3's always") {
  const auto used = [](const char* base, const char* release) {
    const ServerPlan plan = Start(base, release).plan({"model.layers.0.self_attn.q_proj"});
    return event(plan.adapters.at(0), vllm::cause::silent_no_op) == nullptr;
  };
  CHECK_FALSE(used("gemma3", "0.32"));
  CHECK(used("gemma3", "0.33"));
  CHECK(used("mistral3", "0.27"));
}

TEST_CASE("a class begins, ends or changes with a release") {
  const auto not_known = [](const char* base, const char* release) {
    return Start(base, release).plan({}).not_known;
  };
  CHECK(not_known("qwen4_exp_text", "0.28") ==
        "Qwen4ExpForCausalLM is no class of vLLM that is known here");
  CHECK(not_known("qwen4_exp_text", "0.29") == "");
  CHECK(not_known("kolibri1", "0.32") ==
        "Kolibri1ForCausalLM is no class of vLLM that is known here");
  CHECK(not_known("gemma4_moe", "0.30") ==
        "Gemma4ForConditionalGeneration is no class of vLLM that is known here");
  CHECK(not_known("gemma4_moe", "0.31") == "");
  CHECK(not_known("gemma4", "0.30") == "");
  CHECK(not_known("deepseek_v4", "0.33") ==
        "DeepseekV4ForCausalLM is no class of vLLM that is known here");
  CHECK(text_of(Start("glm4_moe_lite", "0.30").server(), "model.layers.1.mlp.gate") == "");
  CHECK(text_of(Start("glm4_moe_lite", "0.31").server(), "model.layers.1.mlp.gate") ==
        "replicated");
  CHECK(text_of(Start("seed_oss", "0.31").server(), "model.embed_tokens") == "");
  CHECK(text_of(Start("seed_oss", "0.32").server(), "model.embed_tokens") == "embedding");
}

TEST_CASE("an architecture that no release has a class of has a text of its own") {
  for (const char* base : {"mistral4", "zaya", "solar_open", "axk2", "aria_text"}) {
    CAPTURE(std::string(base));
    const std::string text = Start(base).plan({}).not_known;
    CHECK(text.starts_with("vLLM has no class "));
    CHECK(text.find("Transformers backend") != std::string::npos);
  }
}

TEST_CASE("a class without LoRA ends the start, by its own name before 0.33") {
  const auto start_text = [](const char* base, const char* release) {
    const ServerPlan plan = Start(base, release).plan({});
    return plan.server.empty() ? std::string() : refusal_text(*plan.server[0].refusal);
  };
  CHECK(start_text("step3p7", "0.33") ==
        "ValueError: LoRA is not supported for Step3p7ForConditionalGeneration");
  CHECK(start_text("diffusion_gemma", "0.33") ==
        "ValueError: LoRA is not supported for DiffusionGemmaForBlockDiffusion");
  CHECK(start_text("diffusion_gemma", "0.32") ==
        "ValueError: DiffusionGemmaForConditionalGeneration does not support LoRA yet.");
  CHECK(start_text("qwen3_omni_moe", "0.28") ==
        "ValueError: Qwen3OmniMoeThinkerForConditionalGeneration does not support LoRA yet.");
  CHECK(start_text("qwen3_omni_moe", "0.29") == "");
  CHECK(start_text("minimax", "0.33").find("until v0.23.0") != std::string::npos);
  CHECK(start_text("deepseek_v4", "0.27") ==
        "ValueError: DeepseekV4ForCausalLM does not support LoRA yet.");
}

TEST_CASE("of a class that no oracle ran the plan says where it was read") {
  const ServerPlan plan = Start("llama").plan({});
  REQUIRE(plan.notes.size() == 1);
  CHECK(plan.notes[0] ==
        "vLLM's LlamaForCausalLM was not run by the oracle: what it takes was read in its source "
        "of 0.27.0 to 0.33.0");
  CHECK(Start("qwen3_5_moe").plan({}).notes.empty());
}
