// lora_down and lora_up beside a module's path become PEFT's names.

#include <doctest/doctest.h>

#include <filesystem>

#include "tests/adapter/translated.h"
#include "tests/io/error_text.h"
#include "tests/io/temp_folder.h"

using namespace moelora;
using namespace moelora::test;

namespace {

MadeAdapter one(const std::string& down, const std::string& up) {
  MadeAdapter made("");
  return made.add(down, {2, 64}).add(up, {32, 2});
}

std::string module_of(const std::string& module, const std::string& family = "") {
  const AdapterFiles files =
      translated(one(module + ".lora_down.weight", module + ".lora_up.weight"), family);
  std::string out = files.tensors.begin()->first;
  out.erase(0, std::string("base_model.model.").size());
  return out.substr(0, out.find(".lora_A"));
}

std::string fault(const MadeAdapter& made) {
  return error_text([&] { translated(made); });
}

}  // namespace

TEST_CASE("each spelling of down and up is one pair") {
  const std::string q = "model.layers.1.self_attn.q_proj";
  // utils/state_dict_utils.py: UNET_TO_DIFFUSERS, DIFFUSERS_TO_PEFT, PEFT_TO_KOHYA_SS
  for (const auto& [down, up] : {std::pair{".lora_down.weight", ".lora_up.weight"},
                                 {".lora.down.weight", ".lora.up.weight"},
                                 {".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"},
                                 {"_lora.down.weight", "_lora.up.weight"},
                                 {".lora_down", ".lora_up"}}) {
    const AdapterFiles files = translated(one(q + down, q + up));
    CHECK(files.dialect->id == "diffusers");
    CHECK(listed(files) == q + ".lora_A.weight [2, 64]; " + q + ".lora_B.weight [32, 2]");
    CHECK(files.config.scaling(q).value() == 1);  // get_peft_kwargs: lora_alpha is r
  }
}

TEST_CASE("the part of a pipeline is left out of a path, and nothing else is") {
  const std::string q = "model.layers.1.self_attn.q_proj";
  for (const std::string front :
       {"", "text_encoder.", "text_encoder_2.", "transformer.", "base_model.model."})
    CHECK(module_of(front + q) == q);
  CHECK(module_of("transformer.layers.1.self_attn.q_proj") == q);
  CHECK(module_of("text_encoder.layers.1.mlp.experts.3.up_proj", "qwen3_moe") ==
        "model.layers.1.mlp.experts.3.up_proj");
  CHECK(module_of("transformer.h.0.attn.c_attn") == "transformer.h.0.attn.c_attn");
}

TEST_CASE("experts may be stacked, alphas are read, and a saved parameter alpha is passed on") {
  const std::string up = "model.layers.1.mlp.experts.up_proj";
  MadeAdapter made("");
  made.add(up + ".lora_down.weight", {8, 2, 64})
      .add(up + ".lora_up.weight", {8, 24, 2})
      .add(up + ".alpha", {1})
      .add("model.layers.1.mixer.alpha", {64});
  made.set(up + ".alpha", Tensor::of_f32({}, std::vector<float>{6}));
  const AdapterFiles files = translated(made, "qwen3_moe");
  CHECK(listed(files) == up + ".lora_A.weight [8, 2, 64]; " + up +
                             ".lora_B.weight [8, 24, 2]; model.layers.1.mixer.alpha [64]");
  CHECK(files.config.scaling(up).value() == 3);
}

TEST_CASE("a pair that is none is refused") {
  const std::string q = "model.layers.1.self_attn.q_proj";
  CHECK(fault(one(q + ".lora_down.weight", q + ".lora_up.bias")) ==
        q + ".lora_up.bias: is neither lora_down.weight, lora_up.weight nor alpha of a module");
  CHECK(fault(one(q + ".lora_down.weight", q + ".lora.up.weight")
                  .add(q + ".lora.down.weight", {2, 64})) ==
        q + ".lora_down.weight: is the same factor as " + q + ".lora.down.weight");
}

TEST_CASE("a folder of diffusers needs no config, and one of other names says so") {
  const TempFolder temp;
  const auto write = [&](const MadeAdapter& made) {
    made.write(temp.path("a"));
    std::filesystem::remove(temp.path("a/adapter_config.json"));
    std::filesystem::rename(temp.path("a/adapter_model.safetensors"),
                            temp.path("a/pytorch_lora_weights.safetensors"));
  };
  const std::string q = "model.layers.1.self_attn.q_proj";
  write(one(q + ".lora_down.weight", q + ".lora_up.weight"));
  CHECK(load_adapter(temp.path("a"), LoadOptions{}).adapter.dense.count(q) == 1);
  MadeAdapter peft("");
  write(peft.pair(q, {2, 64}, {32, 2}));
  CHECK(error_text([&] { load_adapter(temp.path("a"), LoadOptions{}); }, temp.path()) ==
        "a: has no adapter_config.json");
  CHECK(error_hint([&] { load_adapter(temp.path("a"), LoadOptions{}); }) ==
        "Write one beside the weights: {\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": ALPHA} "
        "with the ALPHA that was trained with.");
}
