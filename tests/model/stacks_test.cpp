// Families of an encoder and a decoder, each with its own number of layers and its own choice of
// them. The literal names are of models that transformers 5.24 built of these configs.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <fstream>

#include "lib/model/base_convert.h"
#include "lib/model/model_builder.h"
#include "tests/io/error_text.h"
#include "tests/io/temp_folder.h"

namespace moelora {
namespace {

ModelSpec spec_of(const std::string& config) {
  return make_model_spec(parse_json(config, "config.json"), "config.json");
}

ModelSpec nllb(const std::string& keys) {
  return spec_of(R"({"model_type": "nllb-moe", "d_model": 8, "vocab_size": 16, "num_experts": 2,
                     "encoder_ffn_dim": 6, "decoder_ffn_dim": 10, )" +
                 keys + "}");
}

ModelSpec switch_of(const std::string& keys) {
  return spec_of(R"({"model_type": "switch_transformers", "d_model": 8, "vocab_size": 16,
                     "num_experts": 2, "d_kv": 3, "num_heads": 2, "d_ff": 6, )" +
                 keys + "}");
}

// Of a model's layers, encoder first: "D" dense, "E" with experts, "?" with neither or both.
std::string kinds(const ModelSpec& spec) {
  std::string out;
  for (int layer = 0; layer < spec.layers; ++layer) {
    int dense = 0, experts = 0;
    for (const LinearSpec& linear : spec.linears) {
      if (linear.layer != layer) continue;
      dense += linear.role == Role::dense_mlp ? 1 : 0;
      experts += linear.role == Role::expert ? 1 : 0;
    }
    out += dense == 2 && experts == 0 ? 'D' : dense == 0 && experts == 4 ? 'E' : '?';
  }
  return out;
}

std::string shape_of(const ModelSpec& spec, const std::string& name) {
  for (const auto& [tensor, shape] : spec.tensors(Form::memory))
    if (tensor == name) return to_string(shape);
  return "absent";
}

int layer_of(const ModelSpec& spec, const std::string& module) {
  const LinearSpec* linear = spec.find_linear(module);
  REQUIRE(linear != nullptr);
  return linear->layer;
}

}  // namespace

TEST_CASE("nllb-moe: an encoder and a decoder of their own lengths and steps") {
  const ModelSpec spec = nllb(R"("encoder_layers": 3, "encoder_sparse_step": 1,
                                 "decoder_layers": 6, "decoder_sparse_step": 3)");
  CHECK(spec.layers == 9);
  CHECK(kinds(spec) ==
        "EEE"
        "DDEDDE");
  const std::string encoder = "model.encoder.layers.", decoder = "model.decoder.layers.";
  CHECK(shape_of(spec, encoder + "2.ffn.experts.expert_1.fc1.weight") == "[6, 8]");
  CHECK(shape_of(spec, encoder + "2.ffn.experts.expert_1.fc1.bias") == "[6]");
  CHECK(shape_of(spec, encoder + "2.ffn.experts.expert_2.fc1.weight") == "absent");
  CHECK(shape_of(spec, encoder + "3.self_attn.q_proj.weight") == "absent");
  CHECK(shape_of(spec, encoder + "0.cross_attention.q_proj.weight") == "absent");
  CHECK(shape_of(spec, decoder + "5.ffn.experts.expert_0.fc1.weight") == "[10, 8]");
  CHECK(shape_of(spec, decoder + "5.ffn.experts.expert_0.fc2.weight") == "[8, 10]");
  CHECK(shape_of(spec, decoder + "5.ffn.experts.expert_0.fc2.bias") == "[8]");
  CHECK(shape_of(spec, decoder + "5.ffn.router.classifier.weight") == "[2, 8]");
  CHECK(shape_of(spec, decoder + "5.ffn.router.classifier.bias") == "absent");
  CHECK(shape_of(spec, decoder + "4.ffn.fc1.weight") == "[10, 8]");
  CHECK(shape_of(spec, decoder + "5.ffn.fc1.weight") == "absent");
  CHECK(shape_of(spec, decoder + "0.cross_attention.out_proj.weight") == "[8, 8]");
  CHECK(layer_of(spec, encoder + "2.self_attn.q_proj") == 2);
  CHECK(layer_of(spec, decoder + "0.self_attn.q_proj") == 3);
  CHECK(layer_of(spec, decoder + "5.ffn.experts.expert_1.fc2") == 8);
}

TEST_CASE("nllb-moe: a step of 0 has no sparse layer, and embeddings may be apart") {
  const ModelSpec spec = nllb(R"("encoder_layers": 2, "encoder_sparse_step": 0,
      "decoder_layers": 5, "decoder_sparse_step": 2, "router_bias": true,
      "tie_word_embeddings": false)");
  CHECK(kinds(spec) ==
        "DD"
        "DEDED");
  CHECK(shape_of(spec, "model.encoder.layers.1.ffn.fc1.weight") == "[6, 8]");
  CHECK(shape_of(spec, "model.decoder.layers.1.ffn.router.classifier.bias") == "[2]");
  CHECK(spec.find_linear("model.encoder.embed_tokens")->is_in(Form::hub));
  CHECK(
      !nllb(R"("encoder_layers": 1)").find_linear("model.encoder.embed_tokens")->is_in(Form::hub));
  CHECK(kinds(nllb(R"("encoder_sparse_step": 0, "decoder_sparse_step": 0)")) ==
        std::string(24, 'D'));
}

TEST_CASE("switch_transformers: layers by the numbers of sparse ones") {
  // Layer i where i % step is 1; with a step of 1 all.
  CHECK(kinds(switch_of(R"("num_layers": 4, "num_sparse_encoder_layers": 4,
      "num_decoder_layers": 6, "num_sparse_decoder_layers": 2)")) ==
        "EEEE"
        "DEDDED");
  // 6 / 4 rounds down to 1. No sparse layer stands for a step of all layers, which has layer 1.
  CHECK(kinds(switch_of(R"("num_layers": 4, "num_sparse_encoder_layers": 0,
      "num_decoder_layers": 6, "num_sparse_decoder_layers": 4)")) ==
        "DEDD"
        "EEEEEE");
  CHECK(kinds(switch_of(R"("num_layers": 4, "num_sparse_encoder_layers": 0,
      "num_decoder_layers": 1, "num_sparse_decoder_layers": 0)")) ==
        "DEDD"
        "E");
  // 3 / 5 is 0, as a step of 0 no layer.
  CHECK(kinds(switch_of(R"("num_layers": 1, "num_sparse_encoder_layers": 0,
      "num_decoder_layers": 3, "num_sparse_decoder_layers": 5)")) ==
        "E"
        "DDD");
  // The step that the file says counts first; as many layers as the encoder where null.
  CHECK(kinds(switch_of(R"("num_layers": 4, "num_sparse_encoder_layers": 2,
      "encoder_sparse_step": 3, "decoder_sparse_step": 0, "num_decoder_layers": null)")) ==
        "DEDD"
        "DDDD");
}

TEST_CASE("switch_transformers: the parts of a block are numbered, the decoder's otherwise") {
  const ModelSpec spec = switch_of(R"("num_layers": 3, "encoder_sparse_step": 2,
                                      "num_decoder_layers": 2, "decoder_sparse_step": 2)");
  CHECK(shape_of(spec, "encoder.block.1.layer.1.mlp.experts.expert_1.wi.weight") == "[6, 8]");
  CHECK(shape_of(spec, "encoder.block.2.layer.1.mlp.wo.weight") == "[8, 6]");
  CHECK(shape_of(spec, "decoder.block.1.layer.2.mlp.experts.expert_0.wo.weight") == "[8, 6]");
  CHECK(shape_of(spec, "decoder.block.1.layer.2.mlp.router.classifier.weight") == "[2, 8]");
  CHECK(shape_of(spec, "decoder.block.1.layer.1.EncDecAttention.o.weight") == "[8, 6]");
  CHECK(shape_of(spec, "encoder.block.0.layer.0.SelfAttention.q.weight") == "[6, 8]");
  CHECK(shape_of(spec, "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight") ==
        "[32, 2]");
  CHECK(shape_of(spec, "decoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight") ==
        "absent");
  CHECK(layer_of(spec, "decoder.block.1.layer.1.EncDecAttention.q") == 4);
}

TEST_CASE("A config with more experts than can be listed is refused") {
  CHECK(error_text([] {
          spec_of(R"({"model_type": "nllb-moe", "d_model": 8, "vocab_size": 16,
                      "encoder_layers": 900, "encoder_sparse_step": 1, "num_experts": 4096})");
        }).find("the model would have more than 262144 modules") != std::string::npos);
  CHECK(error_text([] { nllb(R"("decoder_layers": 0)"); }) ==
        "config.json:1:1: decoder_layers is 0, expected 1 to 1000");
}

TEST_CASE("There is no other form of a base whose experts are Linears") {
  const TempFolder temp;
  std::ofstream(temp.path("config.json")) << R"({"model_type": "nllb-moe", "d_model": 8,
      "vocab_size": 16})";
  BaseConversion options;
  options.in = temp.path("");
  options.out = temp.path("out");
  CHECK(error_text([&] { convert_base(options); })
            .find("each expert of this model (nllb-moe) is a module of its own wherever it is "
                  "held: there is "
                  "no other form to write") != std::string::npos);
}

}  // namespace moelora
