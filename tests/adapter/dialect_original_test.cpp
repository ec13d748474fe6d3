// Names of the models' original code: literal rows (mistral-finetune, model/transformer.py and
// moe.py) and what they become; its params.json.

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "lib/base/error.h"
#include "lib/model/model_builder.h"
#include "tests/adapter/dialect_rows.h"
#include "tests/adapter/translated.h"
#include "tests/io/safetensors_bytes.h"
#include "tests/io/temp_folder.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const std::string kSmall = R"({"model_type": "mistral", "hidden_size": 16, "num_hidden_layers": 2,
    "vocab_size": 10, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
    "intermediate_size": 6})";

ModelSpec small() { return make_model_spec(parse_json(kSmall, "config.json"), "config.json"); }

MadeAdapter pair(const std::string& module, const Shape& a, const Shape& b) {
  MadeAdapter made;
  made.add(module + ".lora_A.weight", a).add(module + ".lora_B.weight", b);
  return made;
}

// A folder as mistral-finetune leaves it.
std::string loading(const std::string& params) {
  const TempFolder temp;
  std::filesystem::create_directories(temp.path("base"));
  std::ofstream(temp.path("base/config.json")) << kSmall;
  std::filesystem::create_directories(temp.path("a"));
  if (!params.empty()) std::ofstream(temp.path("a/params.json")) << params;
  const MadeAdapter made = pair("layers.0.attention.wv", {2, 16}, {8, 2});
  std::ofstream(temp.path("a/lora.safetensors"), std::ios::binary)
      << safetensors_bytes(made.tensors());
  LoadOptions options;
  options.base = temp.path("base");
  std::string scale;
  const std::string error = error_text(
      [&] {
        const LoadedAdapter loaded = load_adapter(temp.path("a"), options);
        scale = std::to_string(
            loaded.adapter.dense.at("model.layers.0.self_attn.v_proj").scaling.value());
      },
      temp.path());
  return error.empty() ? scale : error;
}

}  // namespace

TEST_CASE("the original code's modules have these names on the hub") {
  struct Row {
    const char *original, *hub;
    int64_t in, out;
  };
  for (const Row& row : {Row{"layers.1.attention.wq", "model.layers.1.self_attn.q_proj", 16, 16},
                         Row{"layers.1.attention.wk", "model.layers.1.self_attn.k_proj", 16, 8},
                         Row{"layers.1.attention.wv", "model.layers.1.self_attn.v_proj", 16, 8},
                         Row{"layers.1.attention.wo", "model.layers.1.self_attn.o_proj", 16, 16},
                         Row{"layers.0.feed_forward.w1", "model.layers.0.mlp.gate_proj", 16, 6},
                         Row{"layers.0.feed_forward.w2", "model.layers.0.mlp.down_proj", 6, 16},
                         Row{"layers.0.feed_forward.w3", "model.layers.0.mlp.up_proj", 16, 6}}) {
    CAPTURE(row.original);
    const ModelSpec spec = small();
    for (const char* prefix : {"", "base_model.model."}) {
      const MadeAdapter made = pair(prefix + std::string(row.original), {2, row.in}, {row.out, 2});
      const TensorMap out = translated("original", made.tensors(), &spec).tensors;
      CHECK(names_of(out) == std::vector<std::string>{a_name(row.hub), b_name(row.hub)});
    }
  }
}

TEST_CASE("numbered experts of the original code are Mixtral's") {
  const BaseModel base = catalogue_base("mixtral");
  const MadeAdapter made = pair("layers.1.feed_forward.experts.3.w2", {2, 48}, {64, 2});
  const std::string hub = "model.layers.1.block_sparse_moe.experts.3.w2";
  CHECK(names_of(translated("original", made.tensors(), &base.spec).tensors) ==
        std::vector<std::string>{a_name(hub), b_name(hub)});
}

// transformers, convert_mistral_weights_to_hf.py: view(heads, dim / heads / 2, 2, ..).transpose(1,
// 2).
TEST_CASE("rows of wq and wk are put half a head apart") {
  const ModelSpec spec = small();
  const MadeAdapter q = pair("layers.0.attention.wq", {2, 16}, {16, 2});
  CHECK(floats(translated("original", q.tensors(), &spec)
                   .tensors.at(b_name("model.layers.0.self_attn.q_proj"))) ==
        rows_of(q.tensors().at("layers.0.attention.wq.lora_B.weight"),
                {0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15}));
}

TEST_CASE("the original code's names need the base model") {
  CHECK(
      refused("original", pair("layers.0.attention.wo", {2, 16}, {16, 2}).tensors()) ==
      "layers.0.attention.wo.lora_A.weight: is the original code's name of a module, whose rows of "
      "q and k lie in another order than Hugging Face's, and how many heads there are is not "
      "known");
}

TEST_CASE("a model whose converter is not known is refused") {
  const BaseModel base = catalogue_base("qwen3_moe");
  CHECK(
      refused("original", pair("layers.0.attention.wo", {2, 64}, {64, 2}).tensors(), &base.spec) ==
      "layers.0.attention.wo.lora_A.weight: is a name of qwen3_moe's original code, in which the "
      "rows of q and k lie in an order that is not known");
}

TEST_CASE("a module that the original code does not have is refused") {
  const ModelSpec spec = small();
  for (const char* module :
       {"layers.0.attention.wqkv", "layers.9.attention.wq", "layers.0.feed_forward.experts.0.w1"}) {
    CAPTURE(module);
    CHECK(refused("original", pair(module, {2, 16}, {32, 2}).tensors(), &spec) ==
          std::string(module) + ".lora_A.weight: adapts \"" + module +
              "\", which is no module of mistral's original code that is known");
  }
}

TEST_CASE("what is no factor is refused under the original code's names") {
  const ModelSpec spec = small();
  MadeAdapter made;
  made.add("layers.0.attention.wq.lora_B.bias", {16});
  CHECK(refused("original", made.tensors(), &spec) ==
        "layers.0.attention.wq.lora_B.bias: is neither lora_A nor lora_B, the factors of the "
        "original "
        "code's names that are read");
}

// Its keys are looked up by the new names: one of the old names would be passed over, and with it a
// scale.
TEST_CASE("a key of alpha_pattern that names no module of the base model is refused") {
  const auto with = [](const std::string& key) {
    MadeAdapter made(R"({"r": 2, "lora_alpha": 4, "alpha_pattern": {")" + key + R"(": 64}})");
    made.add("layers.0.attention.wv.lora_A.weight", {2, 64})
        .add("layers.0.attention.wv.lora_B.weight", {32, 2});
    return made;
  };
  const AdapterFiles read = translated(with("v_proj"), "mixtral");
  CHECK(read.config.scaling("model.layers.0.self_attn.v_proj").alpha == 64);
  CHECK(error_text([&] { translated(with("wv"), "mixtral"); }) ==
        "adapter_config.json: alpha_pattern: \"wv\" names no module of the base model that the "
        "file has factors of");
}

TEST_CASE("the scale of mistral-finetune is params.json's") {
  CHECK(loading(R"({"lora": {"enable": true, "rank": 2, "dropout": 0.0, "scaling": 3.5}})") ==
        "3.500000");
}

TEST_CASE("a scale that no double times the rank holds is refused") {
  CHECK(loading(R"({"lora": {"rank": 2, "scaling": 1e308}})") ==
        "a/params.json: gives lora_alpha the value inf");
}

TEST_CASE("without params.json the scale is not known") {
  CHECK(loading("") ==
        "a: has neither adapter_config.json nor mistral-finetune's params.json: the rank and the "
        "scale of the adapter are not known");
}

TEST_CASE("a params.json without LoRA is refused") {
  CHECK(loading(R"({"dim": 16})") == "a/params.json: \"lora\" is missing");
}

TEST_CASE("a params.json without a scale is refused") {
  CHECK(loading(R"({"lora": {"rank": 2}})") == "a/params.json: \"scaling\" is missing");
}

TEST_CASE("a file without names of original stays as it is, whoever says that it is original's") {
  MadeAdapter made;
  made.pair("model.layers.0.self_attn.q_proj", {2, 16}, {16, 2});
  CHECK(names_of(translated("original", made.tensors()).tensors) == names_of(made.tensors()));
}
