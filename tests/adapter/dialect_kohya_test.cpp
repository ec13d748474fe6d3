// kohya-ss's names and alphas become PEFT's.

#include <doctest/doctest.h>

#include "tests/adapter/translated.h"
#include "tests/io/error_text.h"

using namespace moelora;
using namespace moelora::test;

namespace {

// A file with one pair, without a config: down [2, 64], up [32, 2].
MadeAdapter one(const std::string& name) {
  MadeAdapter made("");
  return made.add(name + ".lora_down.weight", {2, 64}).add(name + ".lora_up.weight", {32, 2});
}

MadeAdapter& with_alpha(MadeAdapter& made, const std::string& name, Tensor alpha) {
  made.add(name + ".alpha", {1}).set(name + ".alpha", std::move(alpha));
  return made;
}

Tensor number(float value) { return Tensor::of_f32({}, std::vector<float>{value}); }

std::string module_of(const std::string& name, const std::string& family = "") {
  const AdapterFiles files = translated(one(name), family);
  std::string out = files.tensors.begin()->first;
  out.erase(0, std::string("base_model.model.").size());
  return out.substr(0, out.find(".lora_A"));
}

std::string fault(const MadeAdapter& made, const std::string& family = "") {
  return error_text([&] { translated(made, family); });
}

double scale_of(const AdapterFiles& files, const std::string& module) {
  return files.config.scaling(module).value();
}

}  // namespace

TEST_CASE("underscores are dots where the base model has dots") {
  // networks/lora.py: f"{prefix}.{name}.{child_name}".replace(".", "_")
  CHECK(module_of("lora_te_model_layers_1_self_attn_q_proj", "qwen3_moe") ==
        "model.layers.1.self_attn.q_proj");
  CHECK(module_of("lora_te_model_layers_1_mlp_experts_3_down_proj", "qwen3_moe") ==
        "model.layers.1.mlp.experts.3.down_proj");
  CHECK(module_of("lora_te_model_layers_1_mlp_gate", "qwen3_moe") == "model.layers.1.mlp.gate");
  // networks/lora_anima.py: the text encoder is a model without its head
  CHECK(module_of("lora_te1_layers_1_self_attn_q_proj", "qwen3_moe") ==
        "model.layers.1.self_attn.q_proj");
  CHECK(module_of("lora_te1_layers_1_self_attn_kv_a_proj_with_mqa", "deepseek_v3") ==
        "model.layers.1.self_attn.kv_a_proj_with_mqa");
  CHECK(module_of("lora_unet_model_layers_1_mlp_shared_experts_up_proj", "deepseek_v3") ==
        "model.layers.1.mlp.shared_experts.up_proj");
  CHECK(module_of("lora_llm_model_layers_0_mlp_shared_expert_gate", "qwen2_moe") ==
        "model.layers.0.mlp.shared_expert_gate");
  // Mixtral as transformers 4 names it, and as transformers 5 does
  CHECK(module_of("lora_te_model_layers_0_block_sparse_moe_experts_2_w1", "mixtral") ==
        "model.layers.0.block_sparse_moe.experts.2.w1");
  CHECK(module_of("lora_te_model_layers_0_mlp_experts_2_gate_proj", "mixtral") ==
        "model.layers.0.block_sparse_moe.experts.2.gate_proj");
  // LyCORIS's own prefix; OneTrainer keeps dots; two words of a part
  CHECK(module_of("lycoris_model_layers_1_self_attn_q_proj", "qwen3_moe") ==
        "model.layers.1.self_attn.q_proj");
  CHECK(module_of("lora_te.model.layers.1.self_attn.q_proj", "qwen3_moe") ==
        "model.layers.1.self_attn.q_proj");
  CHECK(module_of("lora_prior_te_model_layers_1_self_attn_q_proj", "qwen3_moe") ==
        "model.layers.1.self_attn.q_proj");
  CHECK(module_of("lora_te_lm_head", "qwen3_moe") == "lm_head");
}

TEST_CASE("without a base model they are dots in paths that language models have") {
  CHECK(module_of("lora_te_model_layers_11_self_attn_q_proj") ==
        "model.layers.11.self_attn.q_proj");
  CHECK(module_of("lora_te_model_layers_1_mlp_experts_113_gate_up_proj") ==
        "model.layers.1.mlp.experts.113.gate_up_proj");
  CHECK(module_of("lora_te_model_layers_1_mlp_shared_expert_gate") ==
        "model.layers.1.mlp.shared_expert_gate");
  CHECK(module_of("lora_te_model_layers_1_mlp_shared_expert_gate_proj") ==
        "model.layers.1.mlp.shared_expert.gate_proj");
  CHECK(module_of("lora_te_model_layers_1_mlp_gate_up_proj") == "model.layers.1.mlp.gate_up_proj");
  CHECK(module_of("lora_te_model_language_model_layers_1_linear_attn_in_proj_qkvz") ==
        "model.language_model.layers.1.linear_attn.in_proj_qkvz");
  CHECK(module_of("lora_te_layers_1_mlp_gate") == "model.layers.1.mlp.gate");
}

TEST_CASE("what is of no such path needs the base model, and what is of no module is refused") {
  const std::string te = "lora_te_text_model_encoder_layers_0_mlp_fc1";  // CLIP's
  CHECK(fault(one(te)) ==
        te + ".lora_down.weight: writes underscores for dots, and which of them were dots is not "
             "known of this module");
  CHECK(error_hint([&] { translated(one(te)); }) == "name the base model with --base");
  CHECK(fault(one(te), "qwen3_moe") ==
        te + ".lora_down.weight: is of no module of this base model (qwen3_moe), whatever "
             "underscores were dots");
  CHECK(error_hint([&] { translated(one(te), "qwen3_moe"); }) ==
        "check that --base names the model this adapter was trained on");
  for (const char* beyond : {"lora_te_model_layers_99_self_attn_q_proj",
                             "lora_te_model_layers_1_mlp_experts_99_down_proj"}) {
    CAPTURE(beyond);
    CHECK(fault(one(beyond), "qwen3_moe").find("is of no module") != std::string::npos);
  }
}

// "#" is what stands for a number in the paths that names are looked up by.
TEST_CASE("a name with a mark in place of a number is of no module") {
  for (const char* marked : {"lora_te_model_layers_#_self_attn_q_proj",
                             "lora_te_model_layers_0_mlp_experts_#_up_proj"}) {
    CAPTURE(marked);
    CHECK(fault(one(marked)).find("writes underscores for dots") != std::string::npos);
    CHECK(fault(one(marked), "qwen3_moe").find("is of no module") != std::string::npos);
  }
}

TEST_CASE("a name that two modules may have is refused") {
  ModelSpec spec;
  spec.family = "made";
  for (const char* module : {"layers.0.mixer.in_proj", "layers.0.mixer_in.proj"}) {
    LinearSpec linear{};
    linear.hub = linear.memory = module;
    spec.linears.push_back(linear);
  }
  spec.index_linears();
  const MadeAdapter made = one("lora_te_layers_0_mixer_in_proj");
  CHECK(error_text([&] {
          AdapterFiles files;
          files.tensors = made.tensors();
          read_config({}, files);
          translate(files, &spec);
        }) ==
        "lora_te_layers_0_mixer_in_proj.lora_down.weight: may be of layers.0.mixer.in_proj or of "
        "layers.0.mixer_in.proj");
}

TEST_CASE("a pair keeps its bytes and axes") {
  const MadeAdapter made = one("lora_te_model_layers_1_self_attn_v_proj");
  const AdapterFiles files = translated(made, "qwen3_moe");
  CHECK(listed(files) ==
        "model.layers.1.self_attn.v_proj.lora_A.weight [2, 64]; "
        "model.layers.1.self_attn.v_proj.lora_B.weight [32, 2]");
  CHECK(files.dialect->id == "kohya");
  CHECK(floats(files.tensors.begin()->second) ==
        floats(made.tensors().at("lora_te_model_layers_1_self_attn_v_proj.lora_down.weight")));
}

TEST_CASE("the scale is alpha / r, and 1 where no alpha is there or it is 0") {
  // networks/lora.py: alpha = self.lora_dim if alpha is None or alpha == 0 else alpha
  const std::string q = "lora_te_model_layers_1_self_attn_q_proj";
  const std::string hub = "model.layers.1.self_attn.q_proj";
  MadeAdapter made = one(q);
  CHECK(scale_of(translated(made), hub) == 1);
  CHECK(scale_of(translated(with_alpha(made, q, number(0.5F))), hub) == 0.25);
  CHECK(scale_of(translated(with_alpha(made, q, Tensor::of_f32({1}, std::vector<float>{8}))),
                 hub) == 4);
  const AdapterFiles zero = translated(with_alpha(made, q, number(0)));
  CHECK(scale_of(zero, hub) == 1);
  CHECK(zero.notes.back() == "1 alpha is 0: read as the rank, as kohya's scripts do");
}

TEST_CASE("ranks and alphas of their own become patterns") {
  const std::string k = "lora_te_model_layers_1_self_attn_k_proj";
  MadeAdapter made = one("lora_te_model_layers_0_self_attn_q_proj");
  made.add("lora_te_model_layers_1_self_attn_q_proj.lora_down.weight", {2, 64})
      .add("lora_te_model_layers_1_self_attn_q_proj.lora_up.weight", {32, 2})
      .add(k + ".lora_down.weight", {4, 64})
      .add(k + ".lora_up.weight", {16, 4});
  with_alpha(made, k, number(2));
  const AdapterFiles files = translated(made, "qwen3_moe");
  CHECK(files.config.r == 2);
  CHECK(scale_of(files, "model.layers.0.self_attn.q_proj") == 1);
  CHECK(scale_of(files, "model.layers.1.self_attn.k_proj") == 0.5);
  CHECK(files.config.scaling("model.layers.1.self_attn.k_proj").rank == 4);
}

TEST_CASE("a config that lies there and lacks a scale is not passed over") {
  MadeAdapter made(R"({"r": 2})");
  const std::string q = "lora_te_model_layers_1_self_attn_q_proj";
  made.add(q + ".lora_down.weight", {2, 64}).add(q + ".lora_up.weight", {32, 2});
  CHECK(fault(made) == "adapter_config.json: \"lora_alpha\" is missing");
}

TEST_CASE("the file's alphas count, not those of a config beside it") {
  const std::string q = "lora_te_model_layers_1_self_attn_q_proj";
  const std::string hub = "model.layers.1.self_attn.q_proj";
  const auto beside = [&](const std::string& config, bool alpha) {
    MadeAdapter made(config);
    made.add(q + ".lora_down.weight", {2, 64}).add(q + ".lora_up.weight", {32, 2});
    if (alpha) with_alpha(made, q, number(4));
    return made;
  };
  const std::string plain = R"({"r": 2, "lora_alpha": 16, "alpha_pattern": {"q_proj": 64}})";
  const AdapterFiles files = translated(beside(plain, true));
  CHECK(scale_of(files, hub) == 2);
  CHECK(files.notes.back() ==
        "1 modules have another alpha in the weights than adapter_config.json says: the weights "
        "count");
  CHECK(scale_of(translated(beside(plain, false)), hub) == 32);
  // Beside a config, a module without an alpha has the config's.
  const std::string k = "lora_te_model_layers_1_self_attn_k_proj";
  MadeAdapter mixed = beside(R"({"r": 2, "lora_alpha": 16})", true);
  mixed.add(k + ".lora_down.weight", {2, 64}).add(k + ".lora_up.weight", {32, 2});
  CHECK(scale_of(translated(mixed), hub) == 2);
  CHECK(scale_of(translated(mixed), "model.layers.1.self_attn.k_proj") == 8);
  const std::string rs = R"({"r": 2, "lora_alpha": 16, "use_rslora": true})";
  CHECK(fault(beside(rs, true)) ==
        "adapter_config.json:1:42: \"use_rslora\" is true, and the weights hold alphas that mean "
        "alpha / r");
  CHECK(fault(beside(rs, false)).empty());
}

TEST_CASE("what is no pair of a Linear is refused") {
  const std::string q = "lora_te_model_layers_1_self_attn_q_proj";
  CHECK(fault(one(q).remove(q + ".lora_up.weight")) ==
        q + ".lora_down.weight: has no lora_up beside it");
  CHECK(fault(one(q).remove(q + ".lora_down.weight")) ==
        "adapter_config.json: is not there, and no lora_down.weight tells the rank");
  CHECK(fault(one(q).add("lora_te_lm_head.alpha", {1})) ==
        "lora_te_lm_head.alpha: has no lora_down and no lora_up beside it");
  CHECK(fault(one(q).add(q + ".alpha.weight", {1})) ==
        q + ".alpha.weight: is neither lora_down.weight, lora_up.weight nor alpha of a module");
  CHECK(fault(one(q).add(q + ".dora_scale", {1, 64})) ==
        q + ".dora_scale: is a scale of DoRA, taken over other axes than PEFT's, so PEFT's form "
            "has no place for it");
  CHECK(fault(one(q).add(q + ".lora_mid.weight", {2, 2, 3, 3})) ==
        q + ".lora_mid.weight: is the core of a factored convolution (LoCon, Tucker)");
  CHECK(fault(one(q).add(q + ".lora_down.0.weight", {2, 64})) ==
        q + ".lora_down.0.weight: is of one of several parts of a module, trained apart "
            "(split_qkv, split_dims of kohya's and musubi's scripts for image and video models)");
  CHECK(fault(one(q).add(q + ".lora_up.bias", {32})) ==
        q + ".lora_up.bias: is neither lora_down.weight, lora_up.weight nor alpha of a module");
  CHECK(fault(one(q).add(q + ".alpha", {2})) == q + ".alpha [2]: is an alpha of several numbers");
  MadeAdapter endless = one(q);
  CHECK(fault(with_alpha(endless, q, number(std::numeric_limits<float>::infinity()))) ==
        q + ".alpha: is inf");
  MadeAdapter conv("");
  conv.add(q + ".lora_down.weight", {2, 64, 3, 3}).add(q + ".lora_up.weight", {32, 2, 1, 1});
  CHECK(fault(conv) == q + ".lora_down.weight [2, 64, 3, 3]: is a factor of a convolution, which "
                           "no adapter of a language model has");
  MadeAdapter twice = one(q);
  twice.add("lora_te1_model_layers_1_self_attn_q_proj.lora_down.weight", {2, 64})
      .add("lora_te1_model_layers_1_self_attn_q_proj.lora_up.weight", {32, 2});
  CHECK(fault(twice) ==
        q + ".lora_down.weight: is a second base_model.model.model.layers.1.self_attn.q_proj."
            "lora_A.weight once it is under PEFT's name");
}

TEST_CASE("a 1x1 convolution is a Linear") {
  const std::string q = "lora_te_model_layers_1_self_attn_q_proj";
  MadeAdapter made("");
  made.add(q + ".lora_down.weight", {2, 64, 1, 1}).add(q + ".lora_up.weight", {32, 2, 1, 1});
  CHECK(listed(translated(made)) ==
        "model.layers.1.self_attn.q_proj.lora_A.weight [2, 64]; "
        "model.layers.1.self_attn.q_proj.lora_B.weight [32, 2]");
}

TEST_CASE("a file of many modules is read in a pass") {
  MadeAdapter made("");
  const Tensor down = Tensor::zeros(DType::F32, {1, 64}), up = Tensor::zeros(DType::F32, {24, 1});
  for (int layer = 0; layer < 100; ++layer)
    for (int expert = 0; expert < 200; ++expert) {
      const std::string name = "lora_te_model_layers_" + std::to_string(layer) + "_mlp_experts_" +
                               std::to_string(expert) + "_up_proj.lora_";
      made.add(name + "down.weight", {}).set(name + "down.weight", down);
      made.add(name + "up.weight", {}).set(name + "up.weight", up);
    }
  CHECK(translated(made).tensors.size() == 40000);
}
