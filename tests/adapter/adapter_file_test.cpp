// What is not a routed expert: pairs by module path in the base's own spelling, and extras by kind.

#include "lib/adapter/adapter_file.h"

#include <doctest/doctest.h>

#include "lib/model/base_model.h"
#include "tests/adapter/made_adapter.h"
#include "tests/io/error_text.h"
#include "tests/io/temp_folder.h"

using namespace moelora;
using namespace moelora::test;

namespace {

MadeAdapter with(const std::string& more) {
  return MadeAdapter(R"({"r": 2, "lora_alpha": 4)" + more + "}");
}

std::string only_module(const std::string& module, const std::string& family, const Shape& a,
                        const Shape& b) {
  MadeAdapter made;
  const Adapter adapter = made.pair(module, a, b).read(family).adapter;
  REQUIRE(adapter.dense.size() == 1);
  return adapter.dense.begin()->first;
}

}  // namespace

TEST_CASE("trainers' own names of a module become the base's") {
  CHECK(only_module("model.layers.0.attn.q_proj", "gpt_oss", {2, 64}, {64, 2}) ==
        "model.layers.0.self_attn.q_proj");
  CHECK(only_module("model.unembed_tokens", "gpt_oss", {2, 64}, {160, 2}) == "lm_head");
  CHECK(only_module("model.layers.1.block_sparse_moe.gate", "mixtral", {2, 64}, {4, 2}) ==
        "model.layers.1.mlp.gate");
  CHECK(only_module("backbone.layers.1.mixer.shared_experts.up_proj", "nemotron_h", {2, 64},
                    {40, 2}) == "model.layers.1.mixer.shared_experts.up_proj");
  SUBCASE("without a base model only the head's are known") {
    for (const char* name : {"model.unembed_tokens", "unembed_tokens", "model.lm_head", "lm_head"})
      CHECK(only_module(name, "", {2, 64}, {160, 2}) == "lm_head");
    CHECK(only_module("model.layers.0.attn.q_proj", "", {2, 64}, {64, 2}) ==
          "model.layers.0.attn.q_proj");
  }
}

TEST_CASE("a bare parameter has the scale of its own path") {
  MadeAdapter made = with(
      R"(, "target_parameters": ["mlp.router.weight"], "alpha_pattern": {"router.weight": 8, "router": 1})");
  made.pair("model.layers.0.mlp.router", {2, 64}, {4, 2});
  const DensePair pair = made.read("gpt_oss").adapter.dense.at("model.layers.0.mlp.router");
  CHECK(pair.parameter);
  CHECK(pair.scaling == Scaling{2, 8, false});
}

TEST_CASE("what is not a low-rank pair is an extra of its kind") {
  MadeAdapter made = with(R"(, "modules_to_save": ["lm_head"])");
  made.pair("model.layers.0.self_attn.q_proj", {2, 64}, {64, 2})
      .add("base_model.model.model.embed_tokens.lora_embedding_A", {2, 160})
      .add("base_model.model.model.embed_tokens.lora_embedding_B", {64, 2})
      .add("base_model.model.model.embed_tokens.base_layer.weight", {160, 64})
      .add("base_model.model.lm_head.weight", {160, 64})
      .add("base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias", {64})
      .add("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector", {64})
      .add("base_model.model.model.norm.weight", {64});
  const Adapter adapter = made.read().adapter;
  const auto kind = [&](const std::string& name) {
    return extra_kind_name(adapter.extras.at(name).kind);
  };
  CHECK(adapter.dense.size() == 1);
  CHECK(adapter.extras.size() == 7);
  CHECK(kind("model.embed_tokens.lora_embedding_A") == "embedding factor");
  CHECK(kind("model.embed_tokens.lora_embedding_B") == "embedding factor");
  CHECK(kind("model.embed_tokens.base_layer.weight") == "base weight");
  CHECK(kind("lm_head.weight") == "saved module");
  CHECK(kind("model.layers.0.self_attn.q_proj.lora_B.bias") == "LoRA bias");
  CHECK(kind("model.layers.0.self_attn.q_proj.lora_magnitude_vector") == "DoRA magnitude");
  CHECK(kind("model.norm.weight") == "other");
  SUBCASE("and comes out of a conversion as it went in") {
    const Conversion c = made.convert("peft-linear");
    CHECK(c.tensors.size() == made.tensors().size());
    for (const auto& entry : made.tensors()) {
      CAPTURE(entry.first);
      REQUIRE(c.tensors.count(entry.first) == 1);
      CHECK(floats(c.tensors.at(entry.first)) == floats(entry.second));
    }
  }
}

TEST_CASE("an initialisation that changed the base weights is noted") {
  for (const char* init : {"pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga"}) {
    MadeAdapter made = with(R"(, "init_lora_weights": ")" + std::string(init) + "\"");
    const LoadedAdapter loaded = made.pair("lm_head", {2, 64}, {160, 2}).read();
    REQUIRE(loaded.notes.size() == 1);
    CHECK(loaded.notes[0].starts_with("init_lora_weights is \"" + std::string(init) +
                                      "\": B·A is not a delta to the hub base"));
  }
  for (const char* init : {"\"gaussian\"", "true", "false", "\"eva\"", "\"orthogonal\""}) {
    MadeAdapter made = with(R"(, "init_lora_weights": )" + std::string(init));
    CHECK(made.pair("lm_head", {2, 64}, {160, 2}).read().notes.empty());
  }
}

TEST_CASE("an adapter is a folder, or a weights file beside its config") {
  const TempFolder folder;
  MadeAdapter made;
  made.pair("lm_head", {2, 64}, {160, 2}).write(folder.path("a"));
  CHECK(open_adapter(folder.path("a")).tensors.size() == 2);
  CHECK(open_adapter(folder.path("a/adapter_model.safetensors")).config.r == 2);
  const auto fault = [&](const std::string& path) {
    return error_text([&] { open_adapter(folder.path(path)); }, folder.path());
  };
  CHECK(fault("none") == "none: does not exist");
  std::filesystem::create_directory(folder.path("empty"));
  CHECK(fault("empty") == "empty: has no adapter_config.json");
  MadeAdapter().write(folder.path("hollow"));
  CHECK(fault("hollow") == "hollow: holds no tensor");
}

TEST_CASE(
    "the base model is what --base says, else a known hub name or a folder that the config names") {
  std::vector<std::string> notes;
  const auto base = [&](const std::string& hint, const std::string& flag, bool follow = true) {
    const AdapterConfig config = parse_adapter_config(
        parse_json(R"({"r": 2, "lora_alpha": 4, "base_model_name_or_path": ")" + hint + "\"}", "c"),
        "c");
    LoadOptions options;
    options.base = flag;
    options.follow_base = follow;
    notes.clear();
    const std::optional<BaseModel> found = base_for(config, options, notes);
    return found ? found->spec.family : "none";
  };
  const std::string qwen = std::string(MOELORA_TEST_DATA) + "/catalogue/qwen3_moe";
  CHECK(base("openai/gpt-oss-20b", "") == "gpt_oss");
  REQUIRE(notes.size() == 1);
  CHECK(notes[0].starts_with("base model: "));
  CHECK(base("openai/gpt-oss-20b", qwen) == "qwen3_moe");
  CHECK(notes.empty());
  CHECK(base(qwen, "") == "qwen3_moe");
  REQUIRE(notes.size() == 1);
  CHECK(notes[0] == "base model: " + qwen + "/config.json (from base_model_name_or_path)");
  CHECK(base(qwen, "", false) == "none");
  CHECK(base(qwen + "/nowhere", "") == "none");
  CHECK(base("", "") == "none");
  CHECK(base("nobody/nothing", "") == "none");
}
