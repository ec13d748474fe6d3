// The families that no golden covers: names and shapes as the servers' loaders read them, each
// written out here from the loader that is named, for the small models of loader_bases.h.

#include <doctest/doctest.h>

#include <algorithm>
#include <map>

#include "lib/model/model_builder.h"
#include "tests/model/loader_bases.h"

using namespace moelora;

namespace {

// "NAME ROWSxCOLUMNS" of every tensor below `stem`, without it, in order of name; of the experts
// the last one alone.
using Lines = std::vector<std::string>;

bool is_of_another_expert(const std::string& name, const std::string& stem, int64_t last) {
  if (!name.starts_with(stem + ".")) return false;
  const std::string rest = name.substr(stem.size() + 1);
  const bool is_numbered = rest.front() >= '0' && rest.front() <= '9';
  return is_numbered && !rest.starts_with(std::to_string(last) + ".");
}

Lines tensors_below(const ModelSpec& spec, Form form, const std::string& stem) {
  Lines out;
  for (const auto& [name, shape] : spec.tensors(form)) {
    if (!name.starts_with(stem)) continue;
    bool skip = false;
    for (int layer = 0; layer < spec.layers; ++layer)
      skip = skip || is_of_another_expert(name, spec.expert_stem(form, layer), spec.experts - 1);
    std::string dims;
    for (const int64_t dim : shape) dims += (dims.empty() ? "" : "x") + std::to_string(dim);
    if (!skip) out.push_back(name.substr(stem.size()) + " " + dims);
  }
  std::sort(out.begin(), out.end());
  return out;
}

Lines sorted(Lines lines) {
  std::sort(lines.begin(), lines.end());
  return lines;
}

size_t count(const ModelSpec& spec, Form form) { return spec.tensors(form).size(); }

}  // namespace

// SGLang 0.5.23 bailing_moe.py: BailingMoEAttention (query_key_value, dense), BailingMoEMLP,
// BailingMoEGate, word_embeddings; load_weights: experts' gate_proj, up_proj, down_proj. The same
// in vLLM 0.33.0 bailing_moe.py, and in inclusionAI/Ling models/modeling_bailing_moe.py.
TEST_CASE("Ling: q, k and v in one matrix, word_embeddings, dense layers first") {
  const ModelSpec spec = loader_spec("bailing_moe");
  for (const Form form : {Form::hub, Form::memory}) {
    CHECK(tensors_below(spec, form, "model.layers.0.") ==
          sorted({"attention.query_key_value.weight 100x60", "attention.dense.weight 60x60",
                  "mlp.gate_proj.weight 52x60", "mlp.up_proj.weight 52x60",
                  "mlp.down_proj.weight 60x52"}));
    CHECK(
        tensors_below(spec, form, "model.layers.2.") ==
        sorted({"attention.query_key_value.weight 100x60", "attention.dense.weight 60x60",
                "mlp.gate.weight 7x60", "mlp.shared_experts.gate_proj.weight 44x60",
                "mlp.shared_experts.up_proj.weight 44x60",
                "mlp.shared_experts.down_proj.weight 60x44", "mlp.experts.6.gate_proj.weight 22x60",
                "mlp.experts.6.up_proj.weight 22x60", "mlp.experts.6.down_proj.weight 60x22"}));
    CHECK(tensors_below(spec, form, "model.word_embeddings") == Lines{".weight 96x60"});
    CHECK(tensors_below(spec, form, "lm_head") == Lines{".weight 96x60"});
    CHECK(count(spec, form) == 2 + 5 + 2 * (6 + 3 * 7));
  }
  CHECK(spec.activation == "silu");
  CHECK_FALSE(spec.find_linear("model.layers.2.mlp.gate")->memory_linear);
}

// The biases: modeling_bailing_moe.py gives query_key_value use_qkv_bias, dense use_bias and an MLP
// none. What a config leaves out is as in the hub's configuration_bailing_moe.py (copies of it in
// vLLM-Omni and SGLang 0.5.23 agree): use_bias True, use_qkv_bias False.
TEST_CASE("Ling 2.0: head_dim, shared experts of an own width, and biases as the config says") {
  const ModelSpec spec = loader_spec("bailing_moe_v2");
  CHECK(
      tensors_below(spec, Form::hub, "model.layers.1.attention.") ==
      sorted({"query_key_value.weight 112x60", "query_key_value.bias 112", "dense.weight 60x56"}));
  CHECK(spec.find_linear("model.layers.1.mlp.shared_experts.up_proj")->out == 26);
  CHECK(loader_spec("bailing_moe_v2", R"({"use_bias": true})")
            .find_linear("model.layers.1.attention.dense")
            ->bias);
  const ModelSpec silent =
      loader_spec("bailing_moe", R"({"use_bias": null, "use_qkv_bias": null})");
  CHECK(silent.find_linear("model.layers.1.attention.dense")->bias);
  CHECK_FALSE(silent.find_linear("model.layers.1.attention.query_key_value")->bias);
  CHECK(loader_spec("bailing_moe_v2", R"({"model_type": "bailing_moe_v2"})").family ==
        "bailing_moe");
}

// SGLang 0.5.23 grok.py: Grok1DecoderLayer (self_attn, block_sparse_moe, mlp with residual_moe);
// load_weights: w1, w3, w2. vLLM 0.24.0 grok1.py: Grok2ForCausalLM renames from the same names.
TEST_CASE("Grok-2: Mixtral's names, a dense MLP beside the experts") {
  const ModelSpec spec = loader_spec("grok");
  for (const Form form : {Form::hub, Form::memory}) {
    CHECK(tensors_below(spec, form, "model.layers.1.") ==
          sorted({"self_attn.q_proj.weight 64x60", "self_attn.k_proj.weight 32x60",
                  "self_attn.v_proj.weight 32x60", "self_attn.o_proj.weight 60x64",
                  "mlp.gate_proj.weight 52x60", "mlp.up_proj.weight 52x60",
                  "mlp.down_proj.weight 60x52", "block_sparse_moe.gate.weight 5x60",
                  "block_sparse_moe.experts.4.w1.weight 22x60",
                  "block_sparse_moe.experts.4.w3.weight 22x60",
                  "block_sparse_moe.experts.4.w2.weight 60x22"}));
    CHECK(count(spec, form) == 2 + 2 * (8 + 3 * 5));
  }
  CHECK(spec.hub.gate == "w1");
  CHECK(spec.hub.up == "w3");
  CHECK(spec.activation == "gelu");
  // Without moe_intermediate_size the experts are as wide as intermediate_size says.
  const ModelSpec first = loader_spec("grok_of_mixtral");
  CHECK(first.intermediate == 52);
  CHECK(first.find_linear("model.layers.0.mlp.up_proj") == nullptr);
}

// vLLM 0.24.0 grok1.py: Grok1ForCausalLM (attn, moe_block; ckpt_gate_proj_name "linear", up
// "linear_v", down "linear_1"); MoeMLP of the conversions' own code is act(linear) * linear_v.
TEST_CASE(
    "Grok-1 of the conversions for transformers: attn, moe_block, linear, linear_v, linear_1") {
  const ModelSpec spec = loader_spec("grok1");
  for (const Form form : {Form::hub, Form::memory})
    CHECK(tensors_below(spec, form, "model.layers.1.") ==
          sorted({"attn.q_proj.weight 60x60", "attn.k_proj.weight 20x60",
                  "attn.v_proj.weight 20x60", "attn.o_proj.weight 60x60",
                  "moe_block.gate.weight 5x60", "moe_block.experts.4.linear.weight 52x60",
                  "moe_block.experts.4.linear_v.weight 52x60",
                  "moe_block.experts.4.linear_1.weight 60x52"}));
  CHECK(spec.hub.gate == "linear");
  CHECK(spec.hub.up == "linear_v");
  CHECK(spec.hub.down == "linear_1");
  CHECK(count(spec, Form::hub) == 2 + 2 * (5 + 3 * 5));
}

// SGLang 0.5.23 step3_vl.py and vLLM 0.33.0 step3_text.py: Step3TextAttention (qkv of share_q_dim
// and two head_dim, wq, o_proj), share_expert; load_weights: moe.gate_proj.weight[e] and so on,
// into moe.experts. Names in memory: the hub's modeling_step3.py, _checkpoint_conversion_mapping.
TEST_CASE("Step-3: queries in two steps, one key head, experts batched apart") {
  const ModelSpec spec = loader_spec("step3");
  const std::map<Form, std::string> layers = {{Form::hub, "model.layers."},
                                              {Form::memory, "model.language_model.layers."}};
  for (const auto& [form, stem] : layers) {
    CHECK(tensors_below(spec, form, stem + "0.") ==
          sorted({"self_attn.q_proj.weight 34x60", "self_attn.k_proj.weight 14x60",
                  "self_attn.v_proj.weight 14x60", "self_attn.wq.weight 84x34",
                  "self_attn.o_proj.weight 60x84", "mlp.gate_proj.weight 52x60",
                  "mlp.up_proj.weight 52x60", "mlp.down_proj.weight 60x52"}));
    CHECK(tensors_below(spec, form, stem + "2.share_expert") ==
          sorted({".gate_proj.weight 26x60", ".up_proj.weight 26x60", ".down_proj.weight 60x26"}));
    CHECK(tensors_below(spec, form, "lm_head") == Lines{".weight 96x60"});
    CHECK(tensors_below(spec, form, stem + "2.moe.gate.") == Lines{"weight 5x60"});
  }
  CHECK(tensors_below(spec, Form::hub, "model.layers.2.moe.") ==
        sorted({"gate.weight 5x60", "gate_proj.weight 5x22x60", "up_proj.weight 5x22x60",
                "down_proj.weight 5x60x22"}));
  CHECK(tensors_below(spec, Form::memory, "model.language_model.layers.2.moe.experts.") ==
        sorted({"4.gate_proj.weight 22x60", "4.up_proj.weight 22x60", "4.down_proj.weight 60x22"}));
  CHECK(count(spec, Form::hub) == 2 + 2 * 8 + (5 + 4 + 3));
  CHECK(count(spec, Form::memory) == 2 + 2 * 8 + (5 + 4 + 3 * 5));
}

TEST_CASE(
    "Step-3's text model alone has its layers where the hub has, and one dense layer unless said") {
  Json text = *loader_config("step3").find("text_config");
  text.set("moe_layers_enum", Json());
  const ModelSpec alone = make_model_spec(text, "config.json");
  CHECK(alone.moe_layers == std::vector<bool>{false, true, true});
  CHECK(alone.find_linear("model.layers.1.self_attn.wq") != nullptr);
  CHECK(loader_spec("step3").moe_layers == std::vector<bool>{false, false, true});
}

// SGLang 0.5.23 kimi_k3.py: KimiK3MLAAttention, KimiK3DeltaAttention, KimiK3MoE, AttnResidual;
// load_weights: w1, w3, w2 and block_sparse_moe (hf_to_sglang_mapper). The same in vLLM 0.33.0
// models/kimi_k3, and as moonshotai/Kimi-K3's index lists them.
TEST_CASE("Kimi K3: experts at a width of their own, two kinds of attention with gates") {
  const ModelSpec spec = loader_spec("kimi_k3");
  const Lines residual = {"self_attention_res_proj.weight 1x60", "mlp_res_proj.weight 1x60"};
  const auto with_residual = [&](Lines lines) {
    lines.insert(lines.end(), residual.begin(), residual.end());
    return sorted(lines);
  };
  const Lines delta = {"self_attn.q_proj.weight 40x60",  "self_attn.k_proj.weight 40x60",
                       "self_attn.v_proj.weight 40x60",  "self_attn.b_proj.weight 5x60",
                       "self_attn.f_a_proj.weight 8x60", "self_attn.f_b_proj.weight 40x8",
                       "self_attn.g_proj.weight 40x60",  "self_attn.o_proj.weight 60x40"};
  Lines dense = {"mlp.gate_proj.weight 52x60", "mlp.up_proj.weight 52x60",
                 "mlp.down_proj.weight 60x52"};
  dense.insert(dense.end(), delta.begin(), delta.end());
  for (const Form form : {Form::hub, Form::memory}) {
    CHECK(tensors_below(spec, form, "language_model.model.layers.0.") == with_residual(dense));
    CHECK(tensors_below(spec, form, "language_model.model.layers.3.") ==
          with_residual({"self_attn.q_a_proj.weight 18x60", "self_attn.q_b_proj.weight 84x18",
                         "self_attn.kv_a_proj_with_mqa.weight 24x60",
                         "self_attn.kv_b_proj.weight 132x20", "self_attn.g_proj.weight 72x60",
                         "self_attn.o_proj.weight 60x72", "block_sparse_moe.gate.weight 7x60",
                         "block_sparse_moe.routed_expert_down_proj.weight 28x60",
                         "block_sparse_moe.routed_expert_up_proj.weight 60x28",
                         "block_sparse_moe.shared_experts.gate_proj.weight 44x60",
                         "block_sparse_moe.shared_experts.up_proj.weight 44x60",
                         "block_sparse_moe.shared_experts.down_proj.weight 60x44",
                         "block_sparse_moe.experts.6.w1.weight 22x28",
                         "block_sparse_moe.experts.6.w3.weight 22x28",
                         "block_sparse_moe.experts.6.w2.weight 28x22"}));
    CHECK(tensors_below(spec, form, "language_model.model.output_attn_res_proj") ==
          Lines{".weight 1x60"});
    CHECK(tensors_below(spec, form, "language_model.lm_head") == Lines{".weight 96x60"});
    CHECK(count(spec, form) == 3 + (2 + 8 + 3) + 2 * (2 + 8 + 6 + 3 * 7) + (2 + 6 + 6 + 3 * 7));
  }
  CHECK(spec.activation == "situ");
  CHECK(spec.expert_in == 28);
}

TEST_CASE("Kimi K3 without what a config may leave out") {
  Json config = loader_config("kimi_k3");
  Json text = *config.find("text_config");
  for (const char* key : {"routed_expert_hidden_size", "attn_res_block_size", "q_lora_rank"})
    text.set(key, Json());
  text.set("mla_use_output_gate", parse_json("false", "value"));
  text.set("linear_attn_config",
           parse_json(R"({"num_heads": 5, "head_dim": 8, "kda_layers": [1]})", "value"));
  config.set("text_config", text);
  const ModelSpec spec = make_model_spec(config, "config.json");
  CHECK(tensors_below(spec, Form::hub, "language_model.model.layers.1.self_attn.") ==
        sorted({"q_proj.weight 84x60", "kv_a_proj_with_mqa.weight 24x60", "kv_b_proj.weight 132x20",
                "o_proj.weight 60x72"}));
  CHECK(spec.find_linear("language_model.model.layers.0.self_attn.g_a_proj")->out == 8);
  CHECK(spec.find_linear("language_model.model.layers.0.self_attn.g_b_proj")->in == 8);
  CHECK(spec.expert_in == 60);
  CHECK(spec.find_linear("language_model.model.output_attn_res_proj") == nullptr);
}

// As listed of the published checkpoints: moonshotai/Kimi-K3 (its index and the headers of its
// shards; the experts' are those of the packed halves), inclusionAI/Ling-lite-1.5.
TEST_CASE("published models have the shapes that their files list") {
  const auto shape = [](const ModelSpec& spec, const std::string& name) {
    for (const auto& [found, dims] : spec.tensors(Form::hub))
      if (found == name) return dims;
    return Shape{};
  };
  Json config = loader_config("kimi_k3");
  Json text = *config.find("text_config");
  const Json real = parse_json(
      R"({"hidden_size": 7168, "num_hidden_layers": 93, "vocab_size": 163840,
          "num_attention_heads": 96, "q_lora_rank": 1536, "kv_lora_rank": 512,
          "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "num_experts": 896,
          "num_experts_per_token": 16, "moe_intermediate_size": 3072,
          "routed_expert_hidden_size": 3584, "intermediate_size": 33792,
          "linear_attn_config": {"num_heads": 96, "head_dim": 128, "kda_layers": [1, 2, 3, 91],
          "use_full_rank_gate": true}})",
      "config");
  for (const auto& [key, value] : real.members()) text.set(key, value);
  config.set("text_config", text);
  const ModelSpec kimi = make_model_spec(config, "config.json");
  const std::string k = "language_model.model.layers.";
  CHECK(shape(kimi, k + "0.mlp.gate_proj.weight") == Shape{33792, 7168});
  CHECK(shape(kimi, k + "0.self_attn.f_a_proj.weight") == Shape{128, 7168});
  CHECK(shape(kimi, k + "1.self_attn.f_b_proj.weight") == Shape{12288, 128});
  CHECK(shape(kimi, k + "1.self_attn.b_proj.weight") == Shape{96, 7168});
  CHECK(shape(kimi, k + "1.self_attn.g_proj.weight") == Shape{12288, 7168});
  CHECK(shape(kimi, k + "3.self_attn.kv_a_proj_with_mqa.weight") == Shape{576, 7168});
  CHECK(shape(kimi, k + "3.self_attn.kv_b_proj.weight") == Shape{24576, 512});
  CHECK(shape(kimi, k + "92.self_attn.q_b_proj.weight") == Shape{18432, 1536});
  CHECK(shape(kimi, k + "92.self_attn.g_proj.weight") == Shape{12288, 7168});
  CHECK(shape(kimi, k + "92.block_sparse_moe.routed_expert_down_proj.weight") == Shape{3584, 7168});
  CHECK(shape(kimi, k + "1.block_sparse_moe.shared_experts.down_proj.weight") == Shape{7168, 6144});
  CHECK(shape(kimi, k + "1.block_sparse_moe.experts.895.w1.weight") == Shape{3072, 2 * 1792});
  CHECK(shape(kimi, k + "1.block_sparse_moe.experts.895.w2.weight") == Shape{3584, 2 * 1536});
  CHECK(shape(kimi, k + "1.block_sparse_moe.experts.895.w3.weight") == Shape{3072, 2 * 1792});

  const ModelSpec ling = loader_spec(
      "bailing_moe", R"({"hidden_size": 2048, "num_hidden_layers": 28, "vocab_size": 126464,
                         "num_attention_heads": 16, "num_key_value_heads": 4, "num_experts": 64,
                         "num_experts_per_tok": 6, "moe_intermediate_size": 1408,
                         "intermediate_size": 1408, "first_k_dense_replace": 0})");
  CHECK(shape(ling, "model.layers.0.attention.query_key_value.weight") == Shape{3072, 2048});
  CHECK(shape(ling, "model.layers.27.mlp.shared_experts.gate_proj.weight") == Shape{2816, 2048});
  CHECK(shape(ling, "model.layers.27.mlp.shared_experts.down_proj.weight") == Shape{2048, 2816});
}
