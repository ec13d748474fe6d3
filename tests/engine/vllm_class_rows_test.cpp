// What stands in vLLM's source of its classes, row by row (vllm 0.27.0 to 0.33.0 of PyPI): how a
// module is wrapped, and which names it takes.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "lib/base/dotted_path.h"
#include "lib/engine/vllm/causes.h"
#include "lib/engine/vllm/server/module_buffers.h"
#include "lib/io/json.h"
#include "tests/engine/vllm_start.h"

using namespace moelora;
using namespace moelora::test;

namespace {

using vllm::Kind;
using vllm::Module;
using vllm::Server;

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
    // laguna.py: gate_proj and up_proj are no MergedColumnParallelLinear
    {"laguna", "model.layers.0.self_attn.g_proj", "column"},
    {"laguna", "model.layers.0.mlp.gate_proj", "column"},
    {"laguna", "model.layers.1.mlp.shared_expert.up_proj", "column"},
    {"laguna", "model.layers.1.mlp.gate", "replicated"},
    // longcat_flash.py: fused_qkv_a_proj is in no mapping
    {"longcat_flash", "model.layers.0.self_attn.1.q_b_proj", "column"},
    {"longcat_flash", "model.layers.0.self_attn.0.fused_qkv_a_proj", ""},
    {"longcat_flash", "model.layers.0.mlps.1.gate_up_proj", "merged gate_proj up_proj"},
    {"longcat_flash", "model.layers.0.mlp.router.classifier", "replicated"},
    {"longcat_flash", "model.layers.0.mlp.experts", "experts"},
    // vllm/models/inkling/nvidia: attention.py, mlp.py, model.py
    {"inkling", "model.layers.0.attn.qkvr", "merged wq_du wk_dv wv_dv wr_du"},
    {"inkling", "model.layers.0.attn.wo_ud", "row"},
    {"inkling", "model.layers.0.mlp.gate_up_proj", "column"},
    {"inkling", "model.layers.1.mlp.gate", ""},
    {"inkling", "lm_head", "logits"},
    {"inkling", "model.embed_tokens", ""},
};

}  // namespace

TEST_CASE("modules are wrapped as vLLM's source builds them") {
  for (const Row& row : kRows) {
    CAPTURE(std::string(row.base));
    CAPTURE(std::string(row.module));
    CHECK(text_of(VllmStart(row.base).server(), row.module) == row.text);
  }
}

TEST_CASE("values that are the keys have a slot of their own in qkv_proj") {
  const VllmStart start = VllmStart("gemma4_moe_text").with("attention_k_eq_v", Json(true));
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

TEST_CASE("a class takes LoRA on a module since a release") {
  CHECK(text_of(VllmStart("glm4_moe_lite", "0.30").server(), "model.layers.1.mlp.gate") == "");
  CHECK(text_of(VllmStart("glm4_moe_lite", "0.31").server(), "model.layers.1.mlp.gate") ==
        "replicated");
  CHECK(text_of(VllmStart("seed_oss", "0.31").server(), "model.embed_tokens") == "");
  CHECK(text_of(VllmStart("seed_oss", "0.32").server(), "model.embed_tokens") == "embedding");
}

TEST_CASE(
    "SarvamMoE's attention is BailingMoE's: one Linear for q, k and v, and a router since 0.31") {
  const auto text = [](const char* module, const char* release) {
    const Json names = parse_json(R"(["SarvamMoEForCausalLM"])", "architectures");
    return text_of(VllmStart("sarvam_moe", release).with("architectures", names).server(), module);
  };
  CHECK(text("model.layers.0.attention.query_key_value", "0.33") == "joined 72 24 24");
  CHECK(text("model.layers.0.attention.dense", "0.33") == "row");
  CHECK(text("model.layers.1.mlp.shared_experts.gate_up_proj", "0.33") ==
        "merged gate_proj up_proj");
  CHECK(text("model.layers.1.mlp.gate", "0.30") == "");
  CHECK(text("model.layers.1.mlp.gate", "0.31") == "replicated");
}

TEST_CASE("Ling's class is BailingMoE's, whose head_dim a config may leave out") {
  const auto text = [](const char* base, const char* module, const char* release = "0.33") {
    return text_of(VllmStart(base, release).server(), module);
  };
  CHECK(text("bailing_moe", "model.layers.0.attention.query_key_value") == "joined 60 20 20");
  CHECK(text("bailing_moe_v2", "model.layers.0.attention.query_key_value") == "joined 56 28 28");
  CHECK(text("bailing_moe", "model.layers.0.attention.dense") == "row");
  CHECK(text("bailing_moe", "model.layers.1.mlp.shared_experts.gate_up_proj") ==
        "merged gate_proj up_proj");
  CHECK(text("bailing_moe_v2", "model.layers.1.mlp.gate", "0.30") == "");
  CHECK(text("bailing_moe_v2", "model.layers.1.mlp.gate", "0.31") == "replicated");
}

TEST_CASE("Inkling's class takes the names of its checkpoint, and not those of transformers") {
  const auto refused = [](const char* module) {
    return VllmStart("inkling").plan({module}).adapters.at(0).first_refusal() != nullptr;
  };
  CHECK_FALSE(refused("model.llm.layers.0.attn.wq_du"));
  CHECK_FALSE(refused("model.llm.layers.0.mlp.w13_dn"));
  CHECK(refused("model.language_model.layers.0.self_attn.q_proj"));
}

TEST_CASE("a joined Linear has one buffer, and a rank its part of each slice") {
  ServerOptions options;
  options.tp = 2;
  options.max_lora_rank = 8;
  const VllmStart start("phi3");
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
      VllmStart("granitemoeshared").plan({"model.layers.0.shared_mlp.input_linear"});
  REQUIRE(plan.adapters.size() == 1);
  CHECK(plan.adapters[0].first_refusal() == nullptr);
  CHECK(event(plan.adapters[0], vllm::cause::silent_no_op) != nullptr);
}

TEST_CASE("names that a class does not take are refused in the server's words") {
  const auto refusal = [](const char* base, const char* module) {
    const ServerPlan plan = VllmStart(base).plan({module});
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
  CHECK(refusal("longcat_flash", "model.layers.0.self_attn.0.q_a_proj").find("q_a_proj'") !=
        std::string::npos);
}
