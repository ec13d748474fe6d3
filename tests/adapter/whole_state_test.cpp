// A whole model's state, as trainers save it, holds an adapter among the base's own weights.

#include "lib/adapter/foreign/whole_state.h"

#include <doctest/doctest.h>

#include <filesystem>

#include "lib/adapter/convert.h"
#include "lib/io/safetensors.h"
#include "lib/io/torch/torch_file.h"
#include "tests/adapter/made_adapter.h"
#include "tests/io/error_text.h"
#include "tests/io/golden_text.h"
#include "tests/io/temp_folder.h"
#include "tests/io/torch_bytes.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const std::string kData = MOELORA_TEST_DATA;
const std::string kQ = "model.layers.0.self_attn.q_proj", kPeft = "base_model.model.";

std::string names(const MadeAdapter& made, std::string* note = nullptr) {
  AdapterFiles files;
  files.tensors = made.tensors();
  take_factors_out(files);
  if (note != nullptr) *note = files.notes.empty() ? "" : files.notes.back();
  std::string out;
  for (const auto& [name, tensor] : files.tensors) out += (out.empty() ? "" : "; ") + name;
  return out;
}

std::string fault(const MadeAdapter& made) {
  return error_text([&] { names(made); });
}

// A pair as a live PEFT model names it, beside the weight that it adapts.
MadeAdapter live(const std::string& front = "") {
  MadeAdapter made;
  return made.add(front + kPeft + kQ + ".lora_A.default.weight", {2, 64})
      .add(front + kPeft + kQ + ".lora_B.default.weight", {64, 2})
      .add(front + kPeft + kQ + ".base_layer.weight", {64, 64})
      .add(front + kPeft + "model.norm.weight", {64});
}

// A torch file with these entries in its dict; each of "T" is a tensor.
std::string saying(const std::vector<std::pair<std::string, std::string>>& items) {
  const TempFolder temp;
  const float values[] = {0, 1, 2, 3, 4, 5};
  write_text(temp.path("f.pt"),
             zip_bytes(torch_parts(pickled(p_dict(items)), {floats(values)})).bytes);
  return error_text(
      [&] {
        std::string all;
        for (const auto& [name, tensor] : open_torch_file(temp.path("f.pt")).tensors)
          all += name + " ";
        throw Error("read", all);
      },
      temp.path());
}

}  // namespace

TEST_CASE("the base's own weights are left out and counted, and names lose the adapter's") {
  std::string note;
  CHECK(names(live(), &note) == kPeft + kQ + ".lora_A.weight; " + kPeft + kQ + ".lora_B.weight");
  CHECK(note ==
        "a whole model's state: 2 tensors of the adapter are read, 2 of the base model's own are "
        "left out");
  CHECK(names(live("model.")) == names(live()));  // Lightning's attribute
  MadeAdapter more = live();
  more.add(kPeft + "model.embed_tokens.lora_embedding_A.default", {2, 160})
      .add(kPeft + kQ + ".lora_magnitude_vector.default.weight", {64})
      .add(kPeft + "lm_head.modules_to_save.default.weight", {160, 64})
      .add(kPeft + "lm_head.original_module.weight", {160, 64})
      .add(kPeft + kQ + ".lora_B.default.bias", {64});
  CHECK(names(more, &note) ==
        kPeft + "lm_head.weight; " + kPeft + "model.embed_tokens.lora_embedding_A; " + kPeft + kQ +
            ".lora_A.weight; " + kPeft + kQ + ".lora_B.bias; " + kPeft + kQ + ".lora_B.weight; " +
            kPeft + kQ + ".lora_magnitude_vector.weight");
  CHECK(note.find(" 3 of the base model's own") != std::string::npos);
}

TEST_CASE("a model that was not PEFT's, and experts that are parameters, are known too") {
  MadeAdapter own;  // loralib's: lora_A beside weight
  own.add(kQ + ".lora_A", {2, 64}).add(kQ + ".lora_B", {64, 2}).add(kQ + ".weight", {64, 64});
  CHECK(names(own) == kQ + ".lora_A; " + kQ + ".lora_B");
  const std::string e = kPeft + "model.layers.0.mlp.experts.";
  MadeAdapter experts;
  experts.add(e + "lora_A.default.weight", {16, 24})
      .add(e + "lora_B.default.weight", {64, 16})
      .add(e + "base_layer.lora_A.default.weight", {16, 64})
      .add(e + "base_layer.lora_B.default.weight", {48, 16})
      .add(e + "base_layer.base_layer.gate_up_proj", {8, 48, 64})
      .add(e + "base_layer.base_layer.down_proj", {8, 64, 24});
  CHECK(names(experts) == e + "base_layer.lora_A.weight; " + e + "base_layer.lora_B.weight; " + e +
                              "lora_A.weight; " + e + "lora_B.weight");
}

TEST_CASE("an adapter's own file stays as it is") {
  MadeAdapter made;
  made.pair(kQ, {2, 64}, {64, 2})
      .add(kPeft + kQ + ".lora_B.bias", {64})
      .add(kPeft + kQ + ".base_layer.bias", {64})  // bias: "all"
      .add(kPeft + "lm_head.weight", {160, 64})    // modules_to_save
      .add(kPeft + "model.embed_tokens.lora_embedding_A", {2, 160})
      .add(kPeft + "model.embed_tokens.lora_embedding_B", {64, 2})
      .add(kPeft + "model.embed_tokens.base_layer.weight", {160, 64});  // save_embedding_layers
  std::string note;
  names(made, &note);
  CHECK(note.empty());
}

TEST_CASE("shards, and several adapters, are refused") {
  MadeAdapter zero;
  zero.add(kPeft + kQ + ".lora_A.default.weight", {0});
  CHECK(fault(zero) == kPeft + kQ +
                           ".lora_A.default.weight: is empty: DeepSpeed ZeRO-3 keeps its values in "
                           "the shards of the optimizer");
  MadeAdapter flat;
  flat.add("_fsdp_wrapped_module._flat_param", {4096});
  CHECK(fault(flat) ==
        "_fsdp_wrapped_module._flat_param: is one rank's flat shard of FSDP, not a tensor of the "
        "model");
  CHECK(fault(live().add(kPeft + kQ + ".lora_A.sft.weight", {2, 64})) ==
        kPeft + kQ +
            ".lora_A.sft.weight: is of the adapter \"sft\", and the file has another, "
            "\"default\"");
}

TEST_CASE("two adapters in one file are not one, with the base's weights or without") {
  MadeAdapter two;
  for (const char* name : {"q_proj.lora_A.a", "q_proj.lora_B.a", "v_proj.lora_A.b"})
    two.add("model.layers.0.self_attn." + std::string(name) + ".weight", {2, 64});
  CHECK(
      fault(two) ==
      "model.layers.0.self_attn.v_proj.lora_A.b.weight: is of the adapter \"b\", and the file has "
      "another, \"a\"");
}

TEST_CASE("what another trainer's dialect owns is no weight of the base, read or not") {
  MadeAdapter ada = MadeAdapter().pair(kQ, {2, 64}, {64, 2});
  ada.add(kPeft + kQ + ".lora_E", {2, 1}).add(kPeft + kQ + ".ranknum", {1});
  CHECK(names(ada).find("lora_E") != std::string::npos);
  MadeAdapter mixed = live().add("model.layers.0.mlp.experts.lora_down_A", {4, 24, 2});
  mixed.add(kQ + ".m", {64}).add(kQ + ".alpha", {1});
  std::string note;
  const std::string kept = names(mixed, &note);
  for (const char* name : {"lora_down_A", ".m", ".alpha"})
    CHECK(kept.find(name) != std::string::npos);
  CHECK(note.find(", 2 of the base model's own") != std::string::npos);
  MadeAdapter torchtune;  // a base weight beside factors of another dialect
  torchtune.add("layers.0.attn.q_proj.lora_a.weight", {2, 64})
      .add("layers.0.attn.q_proj.lora_b.weight", {64, 2})
      .add("layers.0.attn.q_proj.weight", {64, 64});
  CHECK(names(torchtune).find("q_proj.weight") == std::string::npos);
}

TEST_CASE("the state dict in a checkpoint is read, its other parts are not looked at") {
  const std::string tensor = p_tensor({});
  for (const char* key : {"module", "state_dict", "model_state_dict", "model"})
    CHECK(saying({{"epoch", p_int(3)}, {key, p_dict({{"w", tensor}})}, {"optimizer", "N"}}) ==
          "read: w ");
  CHECK(saying({{"w", tensor}, {"module", p_dict({{"v", tensor}})}}) ==
        "f.pt: module: is a dict, expected a tensor");
  CHECK(saying({{"net", p_dict({{"w", tensor}})}}) == "f.pt: net: is a dict, expected a tensor");
  CHECK(saying({{"mp_world_size", p_int(2)}, {"module", p_dict({{"w", tensor}})}}) ==
        "f.pt: holds one of 2 shards of each tensor (mp_world_size)");
  CHECK(saying({{"model_state_dict", p_dict({{"w", tensor}})},
                {"optimizer_state_dict", p_dict({{"state", p_dict({})}})}}) == "read: w ");
  CHECK(saying({{"optimizer_state_dict", p_dict({{"w", tensor}})}}) ==
        "f.pt: holds one rank's shard of the optimizer, no weights");
  // What is called so and is none: no dict, a dict without a tensor, no number, one shard.
  CHECK(saying({{"module", "N"}, {"optimizer_state_dict", p_dict({{"w", tensor}})}}) ==
        "f.pt: module: is None, expected a tensor");
  CHECK(saying({{"state_dict", p_dict({{"epoch", p_int(3)}})},
                {"model", p_dict({{"w", tensor}})}}) == "read: w ");
  for (const std::string& size : {p_text("x"), p_int(1)})
    CHECK(saying({{"mp_world_size", size}, {"module", p_dict({{"w", tensor}})}}) == "read: w ");
  CHECK(saying({{"module", p_dict({{"w", tensor}})},
                {"sparse_tensor_module_names", p_call(p_global("__builtin__", "set"), {"]"})},
                {"more", p_call(p_global("builtins", "set"), {})}}) == "read: w ");
  CHECK(saying({{"module", p_dict({{"w", tensor}})},
                {"x", p_call(p_global("os", "system"), {p_text("x")})}})
            .find("names os.system, which a file of plain tensors does not need") !=
        std::string::npos);
}

// tests/data/whole_states.tar.xz: a golden as DeepSpeed, accelerate and Lightning save it.
TEST_CASE("what trainers save of a whole model converts to what PEFT saved of it") {
  const SafetensorsFile twin =
      open_safetensors(kData + "/qwen3_moe/attention_only/adapter_model.safetensors");
  for (const char* file : {"deepspeed/mp_rank_00_model_states.pt", "fsdp/pytorch_model_fsdp.bin",
                           "lightning/last.ckpt"}) {
    CAPTURE(file);
    const TempFolder temp;
    PlanOptions options;
    options.to = "peft-linear";
    options.load.base = kData + "/qwen3_moe/base";
    WriteFolderOptions write;
    write.output.durable = false;
    write_conversion(plan_conversion(kData + "/whole_states/" + file, options), temp.path("out"),
                     write);
    const SafetensorsFile out = open_safetensors(temp.path("out/adapter_model.safetensors"));
    REQUIRE(out.tensors.size() == twin.tensors.size());
    for (const auto& [name, tensor] : twin.tensors)
      CHECK(out.tensors.at(name).read() == tensor.read());
  }
  CHECK(error_text([] {
          load_adapter(kData + "/whole_states/zero3/zero_pp_rank_0_mp_rank_00_model_states.pt",
                       LoadOptions{});
        }).find("is empty: DeepSpeed ZeRO-3 keeps its values") != std::string::npos);
}

TEST_CASE("whole states without a config, and without an adapter, say what to do") {
  const TempFolder temp;
  std::filesystem::copy(kData + "/whole_states/fsdp/pytorch_model_fsdp.bin", temp.path("f.bin"));
  const auto load = [&] { load_adapter(temp.path("f.bin"), LoadOptions{}); };
  CHECK(error_text(load).ends_with(": has no adapter_config.json"));
  CHECK(error_hint(load) ==
        "Write one beside the weights: {\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": ALPHA} "
        "with the ALPHA that was trained with.");
  MadeAdapter base;
  base.add(kQ + ".weight", {64, 64}).write(temp.path("a"));
  CHECK(error_text([&] { load_adapter(temp.path("a"), LoadOptions{}); }) ==
        "weights: hold 1 tensors, none of them a low-rank factor");
}
