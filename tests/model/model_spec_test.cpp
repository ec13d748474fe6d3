// What a family file leaves to the config: spellings, defaults, conditions and their errors.
#include "lib/model/model_spec.h"

#include <doctest/doctest.h>

#include <fstream>

#include "lib/base/error.h"
#include "lib/model/base_model.h"
#include "lib/model/model_builder.h"
#include "tests/io/error_text.h"
#include "tests/io/temp_folder.h"
#include "tests/model/catalogue.h"

namespace moelora {
namespace {

Json config_of(const std::string& family) { return read_json_file(catalogue_entry(family).config); }

// `changes` is a JSON object; a null erases the key.
ModelSpec spec_with(const std::string& family, const std::string& changes) {
  Json config = config_of(family);
  const Json changed = parse_json(changes, "config.json");
  for (const auto& [key, value] : changed.members()) {
    if (value.is(Json::Kind::null))
      config.erase(key);
    else
      config.set(key, value);
  }
  return make_model_spec(config, "config.json");
}

std::string fault(const std::string& family, const std::string& changes) {
  return error_text([&] { spec_with(family, changes); });
}

std::string layers(const std::vector<bool>& chosen) {
  std::string out;
  for (const bool layer : chosen) out += layer ? '1' : '0';
  return out;
}

std::string moe_layers(const std::string& family, const std::string& changes) {
  return layers(spec_with(family, changes).moe_layers);
}

// Layers that have a module of this name.
std::string layers_with(const ModelSpec& spec, const std::string& module) {
  std::string out;
  for (int layer = 0; layer < spec.layers; ++layer) {
    out += spec.find_linear("model.layers." + std::to_string(layer) + "." + module) != nullptr
               ? '1'
               : '0';
  }
  return out;
}

}  // namespace

TEST_CASE("Which layers are MoE follows from each family's own keys") {
  CHECK(
      moe_layers("qwen3_moe",
                 R"({"num_hidden_layers": 6, "mlp_only_layers": [1], "decoder_sparse_step": 2})") ==
      "000101");
  CHECK(moe_layers(
            "qwen3_moe",
            R"({"num_hidden_layers": 4, "mlp_only_layers": null, "decoder_sparse_step": null})") ==
        "1111");
  CHECK(moe_layers("deepseek_v3", R"({"num_hidden_layers": 5, "first_k_dense_replace": null})") ==
        "00011");
  CHECK(
      moe_layers("deepseek_v3",
                 R"({"num_hidden_layers": 6, "first_k_dense_replace": 1, "moe_layer_freq": 2})") ==
      "001010");
  CHECK(moe_layers("glm4_moe", R"({"num_hidden_layers": 4, "first_k_dense_replace": 3})") ==
        "0001");
  CHECK(
      moe_layers(
          "ernie4_5_moe",
          R"({"num_hidden_layers": 6, "moe_layer_start_index": 1, "moe_layer_end_index": -1, "moe_layer_interval": 2})") ==
      "010101");
  CHECK(moe_layers(
            "ernie4_5_moe",
            R"({"num_hidden_layers": 6, "moe_layer_start_index": 2, "moe_layer_end_index": 4})") ==
        "001110");
  CHECK(moe_layers(
            "exaone_moe",
            R"({"num_hidden_layers": 4, "mlp_layer_types": null, "first_k_dense_replace": 2})") ==
        "0011");
  CHECK(moe_layers(
            "jamba",
            R"({"num_hidden_layers": 8, "expert_layer_period": 4, "expert_layer_offset": 2})") ==
        "00100010");
  CHECK(moe_layers("lfm2_moe", R"({"num_dense_layers": 3})") == "0001");
  CHECK(moe_layers(
            "llama4_text",
            R"({"num_hidden_layers": 6, "moe_layers": null, "interleave_moe_layer_step": 2})") ==
        "010101");
  CHECK(moe_layers("llama4_text", R"({"moe_layers": [1]})") == "01");
  CHECK(moe_layers("nemotron_h",
                   R"({"layers_block_type": null, "hybrid_override_pattern": "ME*-E"})") ==
        "01001");
}

TEST_CASE("Which layers attend follows from each family's own keys") {
  const ModelSpec jamba = spec_with(
      "jamba", R"({"num_hidden_layers": 12, "attn_layer_period": 8, "attn_layer_offset": 4})");
  CHECK(layers_with(jamba, "self_attn.q_proj") == "000010000000");
  CHECK(layers_with(jamba, "mamba.in_proj") == "111101111111");
  const ModelSpec next =
      spec_with("qwen3_next",
                R"({"num_hidden_layers": 6, "layer_types": null, "full_attention_interval": 3})");
  CHECK(layers_with(next, "self_attn.q_proj") == "001001");
  CHECK(layers_with(next, "linear_attn.out_proj") == "110110");
  const ModelSpec lfm2 = spec_with("lfm2_moe", R"({"layer_types": null, "full_attn_idxs": [2]})");
  CHECK(layers_with(lfm2, "self_attn.q_proj") == "0010");
  const ModelSpec nemotron =
      spec_with("nemotron_h", R"({"layers_block_type": null, "hybrid_override_pattern": "ME*-"})");
  CHECK(layers_with(nemotron, "mixer.in_proj") == "1000");
  CHECK(layers_with(nemotron, "mixer.q_proj") == "0010");
  CHECK(layers_with(nemotron, "mixer.up_proj") == "0001");
  CHECK(layers_with(nemotron, "mixer.shared_experts.up_proj") == "0100");
}

TEST_CASE("A key has several spellings, and a default where transformers has one") {
  CHECK(spec_with("gpt_oss", R"({"num_local_experts": null, "num_experts": 6})").experts == 6);
  CHECK(spec_with("gpt_oss", R"({"num_experts_per_tok": null, "experts_per_token": 3})").top_k ==
        3);
  CHECK(spec_with("mixtral", R"({"head_dim": 32})")
            .find_linear("model.layers.0.self_attn.q_proj")
            ->out == 128);
  CHECK(spec_with("mixtral", R"({"num_key_value_heads": null})")
            .find_linear("model.layers.0.self_attn.k_proj")
            ->out == 64);
  CHECK(spec_with("hunyuan_v1_moe", R"({"moe_topk": [3, 3]})").top_k == 3);
  CHECK(spec_with("jamba", R"({"mamba_dt_rank": "auto"})")
            .find_linear("model.layers.0.mamba.dt_proj")
            ->in == 4);
  CHECK(spec_with("ernie4_5_moe", R"({"tie_word_embeddings": null})").tied_embeddings);
  CHECK_FALSE(spec_with("mixtral", R"({"tie_word_embeddings": null})").tied_embeddings);
  CHECK(spec_with("qwen3_5_moe_text", R"({"attn_output_gate": false})")
            .find_linear("model.layers.3.self_attn.q_proj")
            ->out == 64);
}

TEST_CASE("A nested config's keys win over those at the top, which count where it has none") {
  Json config = open_base("meta-llama/Llama-4-Scout-17B-16E-Instruct").config;
  config.set("hidden_size", 7);
  config.set("tie_word_embeddings", true);
  const ModelSpec spec = make_model_spec(config, "config.json");
  CHECK(spec.hidden == 5120);
  CHECK(spec.tied_embeddings);
  config.erase("text_config");
  CHECK(error_text([&] {
          make_model_spec(config, "config.json");
        }).find("the key \"text_config\" is missing") != std::string::npos);
}

TEST_CASE("Modules come and go with the config") {
  const ModelSpec plain = spec_with("deepseek_v3", R"({"q_lora_rank": null})");
  CHECK(plain.find_linear("model.layers.0.self_attn.q_a_proj") == nullptr);
  CHECK(plain.find_linear("model.layers.0.self_attn.q_proj")->out == 96);
  const ModelSpec lone = spec_with("deepseek_v3", R"({"n_shared_experts": 0})");
  CHECK(lone.find_linear("model.layers.1.mlp.shared_experts.up_proj") == nullptr);
  const ModelSpec biased = spec_with("glm4_moe", R"({"attention_bias": true})");
  CHECK(biased.find_linear("model.layers.0.self_attn.q_proj")->bias);
  CHECK_FALSE(biased.find_linear("model.layers.0.self_attn.o_proj")->bias);
  const ModelSpec latent = spec_with("nemotron_h", R"({"moe_latent_size": 32})");
  CHECK(latent.expert_in == 32);
  CHECK(latent.in_dim(Projection::up) == 32);
  CHECK(latent.out_dim(Projection::down) == 32);
  CHECK(latent.find_linear("model.layers.1.mixer.fc1_latent_proj")->out == 32);
}

TEST_CASE("A wrong value in a config is reported with its line") {
  CHECK(fault("mixtral", "{}") == "");
  CHECK(fault("mixtral", R"({"hidden_size": null})")
            .find("the key \"hidden_size\" is missing, which a mixtral model needs") !=
        std::string::npos);
  CHECK(fault("gpt_oss", R"({"num_local_experts": null})")
            .find("the key \"num_local_experts\" or \"num_experts\" is missing") !=
        std::string::npos);
  CHECK(fault("mixtral", R"({"hidden_size": "64"})") ==
        "config.json:1:17: /hidden_size: found a string, expected an integer");
  CHECK(fault("mixtral", R"({"hidden_size": 64.5})").find("expected an integer") !=
        std::string::npos);
  CHECK(fault("mixtral", R"({"hidden_size": -64})").find("found -64, expected -1 to") !=
        std::string::npos);
  CHECK(fault("mixtral", R"({"num_hidden_layers": 1000000000})")
            .find("num_hidden_layers is 1000000000, expected 1 to 1000") != std::string::npos);
  CHECK(fault("mixtral", R"({"num_experts_per_tok": 5})")
            .find("num_experts_per_tok is 5, expected 1 to 4") != std::string::npos);
  CHECK(fault("hunyuan_v1_moe", R"({"moe_topk": [3, 2]})") ==
        "config.json:1:18: /moe_topk/1: found 2 after 3, expected the same for all layers");
  CHECK(fault("qwen3_moe", R"({"mlp_only_layers": [9]})") ==
        "config.json:1:22: /mlp_only_layers/0: layer 9 is not one of the model's 3 layers");
  CHECK(fault("mixtral", R"({"num_attention_heads": 3, "num_key_value_heads": 3})")
            .find("\"hidden / heads\": 64 / 3 is not a whole number") != std::string::npos);
  CHECK(fault("mixtral", R"({"num_attention_heads": 0, "head_dim": 16})")
            .find("model.layers.0.self_attn.q_proj would be [0, 64]") != std::string::npos);
  CHECK(fault("mixtral", R"({"model_type": null})").find("the key \"model_type\" is missing") !=
        std::string::npos);
}

TEST_CASE("An unknown model type is answered with the nearest known one and how to add one") {
  CHECK(fault("mixtral", R"({"model_type": "gemma9"})").find("unknown model type 'gemma9'") !=
        std::string::npos);
  CHECK(fault("mixtral", R"({"model_type": "deepseek_v22"})")
            .find("unknown model type 'deepseek_v22' (did you mean 'deepseek_v2'?)") !=
        std::string::npos);
  CHECK(error_hint([] {
          spec_with("mixtral", R"({"model_type": "gemma9"})");
        }).find("--model-spec FILE") != std::string::npos);
}

TEST_CASE("A base is a folder, its config.json or a name; a hub name may be in the local cache") {
  const TempFolder temp;
  const std::string config = catalogue_entry("mixtral").config;
  const std::string folder = config.substr(0, config.rfind('/'));
  CHECK(open_base(folder).folder == folder);
  CHECK(open_base(folder).origin == config);
  CHECK(open_base(config).folder == "");
  CHECK(open_base(config).spec.family == "mixtral");
  CHECK(error_text([&] { open_base(temp.path()); }) ==
        temp.path() + ": this folder has no config.json");

  const std::string repository = temp.path("models--some--model");
  std::filesystem::create_directories(repository + "/refs");
  std::filesystem::create_directories(repository + "/snapshots/abc123");
  std::filesystem::copy(config, repository + "/snapshots/abc123/config.json");
  setenv("HF_HUB_CACHE", temp.path().c_str(), 1);
  CHECK(error_text([] { open_base("some/model"); }).find("refs/main") != std::string::npos);
  std::ofstream(repository + "/refs/main") << "abc123\n";
  CHECK(open_base("some/model").folder == repository + "/snapshots/abc123");
  CHECK(find_named_base("some/model")->spec.family == "mixtral");
  CHECK(error_text([] { open_base("../some/model"); }).find("it is not a hub name either") !=
        std::string::npos);
  std::ofstream(repository + "/refs/main") << "def456\n";
  CHECK(error_text([] { open_base("some/model"); }) ==
        "some/model: no such file or folder; no built-in model has this name; " + repository +
            "/refs/main names a snapshot that is not there: " + repository + "/snapshots/def456");
  std::ofstream(repository + "/refs/main") << "../../..\n";
  CHECK(error_text([] {
          open_base("some/model");
        }).ends_with("; " + repository + "/refs/main holds \"../../..\", which is no commit"));
  CHECK_FALSE(find_named_base("some/model").has_value());
  unsetenv("HF_HUB_CACHE");
}

}  // namespace moelora
