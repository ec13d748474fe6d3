#include "lib/adapter/tensor_name.h"

#include <doctest/doctest.h>

#include "lib/base/error.h"

using namespace moelora;

namespace {

constexpr NamePattern::Word kGateDown[] = {{Projection::gate, "gate_proj"},
                                           {Projection::down, "down_proj"},
                                           {Projection::gate, "w1"},
                                           {Projection::down, "w2"}};
constexpr NamePattern::Word kShort[] = {{Projection::gate, "w1"}, {Projection::down, "w2"}};
constexpr NamePattern kNumbered("{expert}.{proj}", kGateDown), kStacked("{proj}", kShort),
    kPlural("{proj}.{expert}", kPluralWords);

void check_name(const std::string& name, const std::string& module, TensorPart part) {
  CAPTURE(name);
  const TensorName parsed = parse_tensor_name(name);
  CHECK(parsed.module == module);
  CHECK(parsed.part == part);
}

}  // namespace

TEST_CASE("a tensor name is a module and a part") {
  const std::string q = "model.layers.0.self_attn.q_proj", full = "base_model.model." + q;
  check_name(full + ".lora_A.weight", q, TensorPart::lora_a);
  check_name(full + ".lora_B.weight", q, TensorPart::lora_b);
  check_name(full + ".lora_A.default.weight", q, TensorPart::lora_a);
  check_name(full + ".lora_B.my-adapter.weight", q, TensorPart::lora_b);
  check_name(full + ".lora_A", q, TensorPart::lora_a);
  check_name(q + ".lora_A.weight", q, TensorPart::lora_a);  // without PEFT's prefix
  check_name("base_model.model." + full + ".lora_A.weight", q, TensorPart::lora_a);
  check_name(full + ".lora_B.bias", q, TensorPart::lora_bias);
  check_name(full + ".lora_magnitude_vector", q, TensorPart::magnitude);
  check_name(full + ".lora_magnitude_vector.weight", q, TensorPart::magnitude);
  check_name("base_model.model.model.embed_tokens.lora_embedding_A", "model.embed_tokens",
             TensorPart::embedding_a);
  check_name("base_model.model.model.embed_tokens.lora_embedding_B", "model.embed_tokens",
             TensorPart::embedding_b);
  check_name("base_model.model.model.embed_tokens.base_layer.weight", "model.embed_tokens",
             TensorPart::base_weight);
  check_name("base_model.model.model.layers.0.mlp.experts.base_layer.lora_A.weight",
             "model.layers.0.mlp.experts.base_layer", TensorPart::lora_a);
}

TEST_CASE("wrappers of training are no part of a module") {
  const std::string q = "model.layers.0.self_attn.q_proj";
  check_name("base_model.model._orig_mod." + q + ".lora_A.weight", q, TensorPart::lora_a);
  check_name("module.base_model.model." + q + ".lora_B.weight", q, TensorPart::lora_b);
  check_name("base_model.model.model.layers.0._fsdp_wrapped_module.self_attn.q_proj.lora_A.weight",
             q, TensorPart::lora_a);
  CHECK(wrapper_in("a._orig_mod.b") == "torch.compile");
  CHECK(wrapper_in("a.modules_to_save.b").empty());
}

TEST_CASE("what is not part of LoRA keeps its whole name") {
  check_name("base_model.model.lm_head.weight", "lm_head.weight", TensorPart::other);
  check_name("base_model.model.score.bias", "score.bias", TensorPart::other);
  check_name("x.lora_A.a.b.weight", "x.lora_A.a.b.weight", TensorPart::other);
  check_name("x.lora_C.weight", "x.lora_C.weight", TensorPart::other);
  check_name("x.experts.gate_proj_lora_A", "x.experts.gate_proj_lora_A", TensorPart::other);
  check_name("lora_A.weight", "lora_A.weight", TensorPart::other);
  check_name("", "", TensorPart::other);
}

TEST_CASE("a factor's name is printed as PEFT saves it, and read back") {
  CHECK(lora_name("a.b", Side::A) == "base_model.model.a.b.lora_A.weight");
  CHECK(lora_name("a.b", Side::B) == "base_model.model.a.b.lora_B.weight");
  check_name(lora_name("model.norm", Side::B), "model.norm", TensorPart::lora_b);
}

TEST_CASE("an expert's module path is a stem, a layer and a rest") {
  struct Row {
    const char *module, *stem;
    int layer;
    const char* rest;
  };
  for (const Row& row : std::vector<Row>{
           {"model.layers.3.mlp.experts.7.gate_proj", "model.layers.{layer}.mlp.experts", 3,
            "7.gate_proj"},
           {"model.layers.12.mlp.experts", "model.layers.{layer}.mlp.experts", 12, ""},
           {"model.layers.0.mlp.experts.base_layer", "model.layers.{layer}.mlp.experts", 0,
            "base_layer"},
           {"model.layers.5.block_sparse_moe.experts.0.w1",
            "model.layers.{layer}.block_sparse_moe.experts", 5, "0.w1"},
           {"layers.1.feed_forward.experts.w2", "layers.{layer}.feed_forward.experts", 1, "w2"},
           {"model.language_model.layers.2.mlp.experts.3.up_proj",
            "model.language_model.layers.{layer}.mlp.experts", 2, "3.up_proj"},
           {"model.layers.4.experts.down_proj", "model.layers.{layer}.experts", 4, "down_proj"},
           {"transformer.blocks.11.ffn.experts.mlp.base_layer",
            "transformer.blocks.{layer}.ffn.experts", 11, "mlp.base_layer"},
           {"backbone.layers.8.mixer.experts.1.up_proj", "backbone.layers.{layer}.mixer.experts", 8,
            "1.up_proj"}}) {
    CAPTURE(row.module);
    const auto path = parse_expert_path(row.module);
    REQUIRE(path);
    CHECK(path->stem == row.stem);
    CHECK(path->layer == row.layer);
    CHECK(path->rest == row.rest);
    CHECK(with_layer(path->stem, path->layer) + (path->rest.empty() ? "" : "." + path->rest) ==
          row.module);
  }
}

TEST_CASE("what is not under a layer's routed experts is not an expert path") {
  for (const char* module :
       {"model.layers.3.mlp.shared_experts.gate_proj", "model.layers.3.mlp.shared_expert.gate_proj",
        "model.layers.3.mlp.gate", "model.layers.x.mlp.experts.0.w1",
        "model.layers.03.mlp.experts.0.w1", "model.layers.mlp.experts.0.w1", "model.experts.0.w1",
        "mlayers.3.mlp.experts", "model.layers.3", "model.layers.1.mlp.experts.",
        "model.layers.0.self_attention.experts.router.layer", "visual.blocks.3.experts.0.w1",
        "transformer.blocks.x.ffn.experts", "model.layers.1234567890.mlp.experts",
        "model.layers.-1.mlp.experts", "experts", ""})
    CHECK_MESSAGE(!parse_expert_path(module), module);
}

TEST_CASE("DBRX's parameters, in a module below experts, are nested as others are") {
  const auto nesting_of = [](const std::string& rest) {
    const auto path = parse_expert_path("transformer.blocks.0.ffn.experts." + rest);
    REQUIRE(path);
    return path->form == ExpertPath::Form::parameters ? path->nesting : -1;
  };
  CHECK(nesting_of("mlp") == 0);
  CHECK(nesting_of("mlp.base_layer.base_layer") == 2);
  CHECK(nesting_of("base_layer") == 1);
  CHECK(nesting_of("mlp.w1") == -1);
  CHECK(nesting_of("mlp.mlp") == -1);
  CHECK(nesting_of("mlp.") == -1);
}

TEST_CASE("a pattern reads what it prints, in every spelling") {
  for (const int64_t expert : {int64_t{0}, int64_t{9}, int64_t{10}, int64_t{511}})
    for (const char* word : {"gate_proj", "w1", "down_proj", "w2"}) {
      const auto at = kNumbered.match(kNumbered.format(expert, word));
      REQUIRE(at);
      CHECK(at->expert == expert);
      CHECK(at->projection == (std::string(word).ends_with("1") || word[0] == 'g'
                                   ? Projection::gate
                                   : Projection::down));
    }
  CHECK(kNumbered.format(7, "w1") == "7.w1");
  CHECK(kPlural.format(3, "gate_up_projs") == "gate_up_projs.3");
  CHECK(kStacked.format(3, "w2") == "w2");
  CHECK(kStacked.match("w2")->expert == std::nullopt);
  CHECK(kPlural.match("gate_up_projs.3")->expert == 3);
}

TEST_CASE("a pattern prints the first spelling of a projection") {
  CHECK(kNumbered.word(Projection::gate) == "gate_proj");
  CHECK(kStacked.word(Projection::gate) == "w1");
  CHECK(kStacked.word(Projection::up).empty());
}

TEST_CASE("a pattern matches a whole rest and nothing like it") {
  for (const char* rest :
       {"", "gate_proj", "0", "0.", ".gate_proj", "0.up_proj", "0.gate_proj.x", "x.0.gate_proj",
        "00.gate_proj", "-1.gate_proj", "+1.gate_proj", "1e3.gate_proj", "shared.gate_proj",
        "9999999999.gate_proj", "0.gate_proj.", "0..gate_proj"})
    CHECK_MESSAGE(!kNumbered.match(rest), rest);
  for (const char* rest : {"", "0.w1", "w1.0", "w3", "w1."})
    CHECK_MESSAGE(!kStacked.match(rest), rest);
}

TEST_CASE("an index is digits without sign or leading zeros") {
  CHECK(parse_index("0") == 0);
  CHECK(parse_index("999999999") == 999999999);
  for (const char* text : {"", "-1", "+1", "01", "1 ", " 1", "1.0", "0x1", "1000000000", "a"})
    CHECK_MESSAGE(!parse_index(text), text);
}
