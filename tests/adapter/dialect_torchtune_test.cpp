// torchtune's adapters: literal names (torchtune, models/convert_weights.py: _FROM_HF and
// tune_to_peft_adapter_weights; modules/moe/experts.py) and what they become.

#include <doctest/doctest.h>

#include "lib/base/error.h"
#include "lib/model/attention_heads.h"
#include "lib/model/model_builder.h"
#include "tests/adapter/dialect_rows.h"
#include "tests/io/temp_folder.h"

using namespace moelora;
using namespace moelora::test;

namespace {

// 4 heads of 4, 2 of keys and values, hidden 16, intermediate 6, 2 layers.
ModelSpec small(const std::string& model_type, const std::string& more = "") {
  const std::string config = R"({"model_type": ")" + model_type +
                             R"(", "hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 10,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "intermediate_size": 6)" +
                             more + "}";
  return make_model_spec(parse_json(config, "config.json"), "config.json");
}

const std::string kAttn = "layers.1.attn.", kSelf = "model.layers.1.self_attn.";

MadeAdapter tune(const std::string& module, const Shape& a, const Shape& b) {
  MadeAdapter made;
  made.add(module + ".lora_a.weight", a).add(module + ".lora_b.weight", b);
  return made;
}

}  // namespace

TEST_CASE("torchtune's modules have these names on the hub") {
  struct Row {
    const char *tune, *hub;
    int64_t in, out;
  };
  for (const Row& row :
       {Row{"layers.1.attn.q_proj", "model.layers.1.self_attn.q_proj", 16, 16},
        Row{"layers.1.attn.k_proj", "model.layers.1.self_attn.k_proj", 16, 8},
        Row{"layers.1.attn.v_proj", "model.layers.1.self_attn.v_proj", 16, 8},
        Row{"layers.1.attn.output_proj", "model.layers.1.self_attn.o_proj", 16, 16},
        Row{"layers.0.mlp.w1", "model.layers.0.mlp.gate_proj", 16, 6},
        Row{"layers.0.mlp.w2", "model.layers.0.mlp.down_proj", 6, 16},
        Row{"layers.0.mlp.w3", "model.layers.0.mlp.up_proj", 16, 6},
        Row{"output", "lm_head", 16, 10}}) {
    CAPTURE(row.tune);
    const ModelSpec spec = small("llama");
    const MadeAdapter made = tune(row.tune, {2, row.in}, {row.out, 2});
    const TensorMap out = translated("torchtune", made.tensors(), &spec).tensors;
    CHECK(names_of(out) == std::vector<std::string>{a_name(row.hub), b_name(row.hub)});
    CHECK(floats(out.at(a_name(row.hub))) ==
          floats(made.tensors().at(std::string(row.tune) + ".lora_a.weight")));
  }
}

// tune_to_peft_adapter_weights: view(heads, head_dim / 2, 2, r).transpose(1, 2).
TEST_CASE("rows of q and k are rotary pairs where torchtune permutes a checkpoint") {
  const std::vector<int64_t> heads_of_4 = {0, 2, 1, 3, 4, 6, 5, 7};
  for (const char* type : {"llama", "mistral", "qwen3", "qwen2"}) {
    CAPTURE(type);
    const ModelSpec spec = small(type);
    const MadeAdapter made = tune(kAttn + "k_proj", {2, 16}, {8, 2});
    const TensorMap out = translated("torchtune", made.tensors(), &spec).tensors;
    const Tensor& b = made.tensors().at(kAttn + "k_proj.lora_b.weight");
    const bool permuted = type[0] != 'q';
    CHECK(floats(out.at(b_name(kSelf + "k_proj"))) ==
          (permuted ? rows_of(b, heads_of_4) : floats(b)));
    const MadeAdapter v = tune(kAttn + "v_proj", {2, 16}, {8, 2});
    CHECK(
        floats(translated("torchtune", v.tensors(), &spec).tensors.at(b_name(kSelf + "v_proj"))) ==
        floats(v.tensors().at(kAttn + "v_proj.lora_b.weight")));
  }
}

TEST_CASE("Phi-3's q, k and v are joined as one matrix of three ranks") {
  ModelSpec spec = small("phi3");
  MadeAdapter made = tune(kAttn + "q_proj", {2, 16}, {16, 2});
  made.add(kAttn + "v_proj.lora_a.weight", {2, 16})
      .add(kAttn + "v_proj.lora_b.weight", {8, 2})
      .add(kAttn + "output_proj.lora_a.weight", {2, 16})
      .add(kAttn + "output_proj.lora_b.weight", {16, 2});
  const Translation all = translated("torchtune", made.tensors(), &spec);
  const Tensor& a = all.tensors.at(a_name(kSelf + "qkv_proj"));
  const Tensor& b = all.tensors.at(b_name(kSelf + "qkv_proj"));
  CHECK(a.shape() == Shape{4, 16});
  CHECK(b.shape() == Shape{32, 4});
  const TensorMap& in = made.tensors();
  CHECK(floats(a.slice(0, 2, 2)) == floats(in.at(kAttn + "v_proj.lora_a.weight")));
  CHECK(floats(b.slice(0, 0, 16).slice(1, 0, 2)) == floats(in.at(kAttn + "q_proj.lora_b.weight")));
  CHECK(floats(b.slice(0, 24, 8).slice(1, 2, 2)) == floats(in.at(kAttn + "v_proj.lora_b.weight")));
  CHECK(floats(b.slice(0, 16, 8)) == std::vector<float>(8 * 4, 0.0F));  // k has none
  CHECK(all.alphas ==
        std::map<std::string, double>{{kSelf + "qkv_proj", 8}, {kSelf + "o_proj", 4}});
}

TEST_CASE("a joined matrix has the scale of its parts, whatever the config says it is") {
  const ModelSpec spec = small("phi3");
  MadeAdapter made = tune(kAttn + "q_proj", {2, 16}, {16, 2});
  made.add(kAttn + "v_proj.lora_a.weight", {2, 16}).add(kAttn + "v_proj.lora_b.weight", {8, 2});
  const auto alpha = [&](const std::string& config) {
    return translated("torchtune", made.tensors(), &spec, config).alphas.at(kSelf + "qkv_proj");
  };
  const double rslora = alpha(R"({"r": 2, "lora_alpha": 4, "use_rslora": true})");
  CHECK(Scaling{4, rslora, true}.value() == Scaling{2, 4, true}.value());
  CHECK(alpha(R"({"r": 2, "lora_alpha": 4, "alpha_pattern": {"qkv_proj": 6}})") == 12);
}

TEST_CASE("grouped experts of torchtune are stacked, in the decoder of Llama 4") {
  const BaseModel base = catalogue_base("llama4_text");
  const std::string experts = "decoder.layers.1.mlp.experts.lora_";
  MadeAdapter made;
  made.add(experts + "gate_a", {4, 64, 2})
      .add(experts + "gate_b", {4, 2, 48})
      .add(experts + "up_a", {4, 64, 2})
      .add(experts + "down_b", {4, 2, 64})
      .add("decoder.layers.1.mlp.shared_expert.w1.lora_a.weight", {2, 64});
  const TensorMap out = translated("torchtune", made.tensors(), &base.spec).tensors;
  const std::string stem = "model.layers.1.feed_forward.";
  CHECK(names_of(out) == std::vector<std::string>{
                             b_name(stem + "experts.down_proj"), a_name(stem + "experts.gate_proj"),
                             b_name(stem + "experts.gate_proj"), a_name(stem + "experts.up_proj"),
                             a_name(stem + "shared_expert.gate_proj")});
  CHECK(out.at(a_name(stem + "experts.gate_proj")).shape() == Shape{4, 2, 64});
  CHECK(floats(out.at(b_name(stem + "experts.gate_proj"))) ==
        floats(made.tensors().at(experts + "gate_b").transpose(1, 2)));
}

TEST_CASE("torchtune's names need the base model") {
  CHECK(refused("torchtune", tune(kAttn + "q_proj", {2, 16}, {16, 2}).tensors()) ==
        kAttn +
            "q_proj.lora_a.weight: is torchtune's name of a module, and what the model calls it "
            "and in which order the rows of q and k lie is not known");
}

TEST_CASE("a family that torchtune is not known to train is refused") {
  const ModelSpec spec = small("smollm3");
  CHECK(refused("torchtune", tune(kAttn + "q_proj", {2, 16}, {16, 2}).tensors(), &spec) ==
        kAttn +
            "q_proj.lora_b.weight: is of torchtune, which is not known to train smollm3: the "
            "order of the rows of q and k is not known");
}

TEST_CASE("an unknown module of torchtune's spelling is refused") {
  const ModelSpec spec = small("llama");
  CHECK(
      refused("torchtune", tune("layers.0.attention.wq", {2, 16}, {16, 2}).tensors(), &spec) ==
      "layers.0.attention.wq.lora_a.weight: is of \"attention.wq\", no module of torchtune's that "
      "is known");
}

TEST_CASE("a factor of no module at all is refused") {
  const ModelSpec spec = small("llama");
  for (const char* name : {"base_model.model.lora_a.weight", "decoder.lora_b.weight"}) {
    CAPTURE(name);
    MadeAdapter made;
    made.add(name, {2, 16});
    CHECK(refused("torchtune", made.tensors(), &spec) ==
          std::string(name) + ": is of \"\", no module of torchtune's that is known");
  }
}

TEST_CASE("a module that the base model lacks is refused") {
  const ModelSpec spec = small("llama");
  CHECK(refused("torchtune", tune("layers.7.attn.v_proj", {2, 16}, {8, 2}).tensors(), &spec) ==
        "layers.7.attn.v_proj.lora_a.weight: adapts self_attn.v_proj of layer 7, which this base "
        "model does not have");
}

TEST_CASE("the magnitude of torchtune's DoRA is refused") {
  const ModelSpec spec = small("llama");
  MadeAdapter made = tune(kAttn + "q_proj", {2, 16}, {16, 2});
  made.add(kAttn + "q_proj.magnitude", {16});
  CHECK(refused("torchtune", made.tensors(), &spec) ==
        kAttn +
            "q_proj.magnitude: is the magnitude of DoRA, whose rows torchtune orders otherwise");
}

TEST_CASE("rows that are not those of the heads are refused") {
  const ModelSpec spec = small("llama");
  CHECK(refused("torchtune", tune(kAttn + "k_proj", {2, 16}, {16, 2}).tensors(), &spec) ==
        kAttn +
            "k_proj.lora_b.weight: has shape [16, 2], expected two dims and 8 rows: 2 heads of 4");
}

TEST_CASE("a factor of a torchtune Linear has two dims") {
  const ModelSpec spec = small("llama");
  CHECK(refused("torchtune", tune(kAttn + "v_proj", {1, 2, 16}, {8, 2}).tensors(), &spec) ==
        kAttn + "v_proj.lora_a.weight: has shape [1, 2, 16], expected two dims");
}

TEST_CASE("one side of a joined matrix without the other is refused") {
  const ModelSpec spec = small("phi3");
  MadeAdapter made;
  made.add(kAttn + "q_proj.lora_a.weight", {2, 16});
  CHECK(refused("torchtune", made.tensors(), &spec) ==
        kAttn + "q_proj.lora_a.weight: has no lora_B beside it");
}

TEST_CASE("parts of a joined matrix have one rank and their own rows") {
  const ModelSpec spec = small("phi3");
  MadeAdapter made = tune(kAttn + "q_proj", {2, 16}, {16, 2});
  made.add(kAttn + "k_proj.lora_a.weight", {3, 16}).add(kAttn + "k_proj.lora_b.weight", {8, 3});
  CHECK(refused("torchtune", made.tensors(), &spec) ==
        kAttn + "k_proj.lora_a.weight: has rank 3, the first part of the joined matrix 2");
  CHECK(refused("torchtune", tune(kAttn + "k_proj", {2, 16}, {16, 2}).tensors(), &spec) ==
        kAttn + "k_proj.lora_b.weight: has 16 rows, expected 8");
}

TEST_CASE("grouped experts are refused where they make no sense") {
  const BaseModel base = catalogue_base("llama4_text");
  const ModelSpec dense = small("llama");
  const std::string gate = "layers.0.mlp.experts.lora_gate_a",
                    w1 = "layers.0.mlp.experts.lora_w1_a";
  MadeAdapter made, flat, unknown;
  made.add(gate, {4, 64, 2});
  flat.add(gate, {64, 2});
  unknown.add(w1, {4, 64, 2});
  CHECK(refused("torchtune", made.tensors(), &dense) ==
        gate + ": is of routed experts, and the base model is a dense llama");
  CHECK(refused("torchtune", flat.tensors(), &base.spec) ==
        gate + ": has shape [64, 2], expected three dims, experts first");
  CHECK(refused("torchtune", unknown.tensors(), &base.spec) ==
        w1 + ": is no factor of torchtune's grouped experts, which are called "
             "layers.N.mlp.experts.lora_gate, lora_up and lora_down");
}

TEST_CASE("heads of attention are the config's, or an error") {
  const AttentionHeads heads = attention_heads(small("llama"));
  CHECK(heads.heads == 4);
  CHECK(heads.kv_heads == 2);
  CHECK(heads.head_dim == 4);
  CHECK(error_text([] { attention_heads(catalogue_base("deepseek_v3").spec); }) ==
        "deepseek_v3: the heads of its attention are not known: 4, 0 of keys and values, each 0 "
        "wide");
}

TEST_CASE("a file without names of torchtune stays as it is, whoever says that it is torchtune's") {
  MadeAdapter made;
  made.pair("model.layers.0.self_attn.q_proj", {2, 16}, {16, 2});
  CHECK(names_of(translated("torchtune", made.tensors()).tensors) == names_of(made.tensors()));
}
