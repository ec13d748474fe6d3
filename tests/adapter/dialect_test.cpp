// Factors as other trainers than PEFT spell them are known by name, and read or refused.

#include "lib/adapter/dialect.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "tests/adapter/made_adapter.h"
#include "tests/io/error_text.h"
#include "tests/io/temp_folder.h"

using namespace moelora;
using namespace moelora::test;

namespace {

std::string whose(std::string_view name) {
  const Dialect* dialect = dialect_of_name(name);
  return dialect == nullptr ? "" : std::string(dialect->whose);
}

MadeAdapter plain() {
  MadeAdapter made;
  return made.pair("model.layers.0.self_attn.q_proj", {2, 64}, {64, 2});
}

std::string loading(const MadeAdapter& made) {
  const TempFolder temp;
  made.write(temp.path("a"));
  return error_text([&] { load_adapter(temp.path("a"), {}); }, temp.path());
}

}  // namespace

TEST_CASE("each trainer's spelling is known by its names") {
  CHECK(whose("model.layers.0.mlp.switch_mlp.gate_proj.lora_a") == "MLX");
  CHECK(whose("model.layers.0.self_attn.q_proj.lora_b") == "MLX");
  CHECK(whose("layers.0.attn.q_proj.lora_a.weight") == "torchtune or torchtitan");
  CHECK(whose("layers.0.mlp.experts.lora_gate_b") == "torchtune or torchtitan");
  CHECK(whose("lora_te_model_layers_0_mlp_experts_0_down_proj.alpha") == "kohya");
  CHECK(whose("lora_unet_layers_0_q_proj.lora_down.weight") == "kohya");
  CHECK(whose("model.layers.0.mlp.experts.0.down_proj.lora_up.weight") == "diffusers");
  CHECK(whose("model.layers.0.self_attn.q_proj.lora.down.weight") == "diffusers");
  CHECK(whose("decoder.layers.0.self_attention.linear_qkv.adapter.linear_in.weight") ==
        "NeMo or Megatron-Bridge");
  CHECK(whose("decoder.layers.0.mlp.experts.linear_fc1.lora_A.default.weight0") == "Megatron-Core");
  CHECK(whose("decoder.layers.0.self_attention.linear_proj.lora_A.default.weight") ==
        "Megatron-Core");
  CHECK(whose("base_model.model.model.layers.0.mlp.experts.lora_gate_and_up_A") ==
        "NeMo AutoModel");
  CHECK(whose("base_model.model.model.layers.0.mlp.experts.lora_down_B") == "NeMo AutoModel");
  CHECK(whose("layers.0.attention.wq.lora_A.weight") == "the model's original code");
  CHECK(whose("base_model.model.model.layers.0.self_attn.q_proj.lora_E") == "AdaLoRA");
  CHECK(whose("base_model.model.model.layers.0.self_attn.q_proj.hada_w1_a") ==
        "another method than LoRA");
  CHECK(whose("layers.0.feed_forward.experts.0.w1.lora_A.weight") == "the model's original code");
  CHECK(whose("transformer.h.0.attn.qkv.lora_A") == "LitGPT");
  for (const char* name :
       {"model.layers.0.self_attn.q_proj.lora_A.kernel", "layers.0.moe.experts.w1_lora_a",
        "model.layers.0.self_attn.q_proj.lora_right_weight",
        "base_model.model.model.layers.0.self_attn.q_proj.LoRA_A.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.loraB.weight"}) {
    CAPTURE(name);
    CHECK(whose(name) == "no trainer known here");
  }
}

TEST_CASE("what PEFT writes is in no foreign spelling") {
  for (const char* name :
       {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.model.layers.0.mlp.experts.base_layer.lora_B.weight",
        "base_model.model.model.layers.0.mlp.experts.w1.lora_A.weight",
        "base_model.model.model.layers.0.feed_forward.w1.lora_A.weight",
        "base_model.model.model.visual.blocks.0.mlp.linear_fc1.lora_A.weight",
        // InternLM2's modules, a vision tower's, others that sound alike
        "base_model.model.model.layers.0.attention.wqkv.lora_A.weight",
        "base_model.model.model.visual.blocks.0.attn.linear_qkv.lora_A.weight",
        "base_model.model.model.layers.0.mlp.linear_in.lora_A.weight",
        "base_model.model.model.decoder.layers.0.self_attention.query.lora_B.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.lora_up.weight",
        "base_model.model.score.modules_to_save.weight", "base_model.model.score.weight",
        "base_model.model.lm_head.weight"}) {
    CAPTURE(name);
    CHECK(whose(name).empty());
  }
}

TEST_CASE("a name belongs to one dialect") {
  for (const Dialect* dialect : all_dialects()) {
    CAPTURE(dialect->id);
    CHECK(find_dialect(dialect->id) == dialect);
    CHECK(!dialect->whose.empty());
    CHECK(!dialect->names.empty());
    CHECK((dialect->owns != nullptr || dialect->fits != nullptr || dialect->set != ShardSet::none));
    CHECK((dialect->read == nullptr) == !dialect->advice.empty());
  }
}

TEST_CASE("a layout that is named turns detection off") {
  MadeAdapter made;  // as if a model called its modules so
  const std::string module = "layers.0.attention.wq";
  made.pair(module, {2, 64}, {64, 2});
  CHECK(loading(made).find("no adapter") == std::string::npos);
  const LoadedAdapter loaded = made.read("", {}, "peft-linear");
  CHECK(loaded.files.dialect == nullptr);
  CHECK(loaded.adapter.dense.count(module) == 1);
}

TEST_CASE("what is wrong with a translated tensor is said with the file's own name") {
  MadeAdapter made;
  const std::string module = "model.layers.0.self_attn.q_proj";
  made.add(module + ".lora_down.weight", {2, 64}).add(module + ".lora_up.weight", {64, 3});
  CHECK(loading(made).starts_with(module + ".lora_down.weight (read as " + a_name(module) + "): "));
  MadeAdapter plain;
  plain.pair(module, {2, 64}, {64, 3});
  CHECK(loading(plain).starts_with(a_name(module) + ": "));
}

TEST_CASE("a rank that contradicts PEFT's config beside a dialect is refused") {
  MadeAdapter made(R"({"r": 8, "lora_alpha": 16})");
  const std::string module = "model.layers.0.self_attn.q_proj";
  made.add(module + ".lora_down.weight", {4, 64}).add(module + ".lora_up.weight", {64, 4});
  CHECK(loading(made).find("has rank 4, but adapter_config.json says 8") != std::string::npos);
}

TEST_CASE("a file with factors that nothing reads is refused, with how many they are") {
  CHECK(loading(plain()).empty());
  CHECK(loading(plain()
                    .add("model.layers.0.self_attn.k_proj.lora_E", {2, 1})
                    .add("model.layers.0.self_attn.k_proj.ranknum", {1})) ==
        "model.layers.0.self_attn.k_proj.lora_E: 2 of 4 tensors are low-rank factors in the "
        "spelling of AdaLoRA (MODULE.lora_E, MODULE.ranknum), which nothing reads");
}

// LyCORIS writes no adapter_config.json, and none would help.
TEST_CASE("another method is refused by name, config or not") {
  const TempFolder temp;
  const std::string name = "lora_te_model_layers_0_self_attn_q_proj.hada_w1_a";
  MadeAdapter("").add(name, {64, 4}).write(temp.path("a"));
  const auto refusal = [&] { return error_text([&] { open_adapter(temp.path("a")); }); };
  std::ofstream(temp.path("a/adapter_config.json")) << "{}";
  CHECK(refusal().starts_with(name + ": 1 of 1 tensors are low-rank factors in the spelling of "
                                     "another method than LoRA"));
  std::filesystem::remove(temp.path("a/adapter_config.json"));
  CHECK(refusal().starts_with(name + ": 1 of 1 tensors"));
  std::ofstream(temp.path("a/adapter_config.json")) << R"({"peft_type": "LOHA", "r": 4})";
  CHECK(refusal().find("\"LOHA\", expected \"LORA\"") != std::string::npos);
}

TEST_CASE("a file without any factor is no adapter") {
  MadeAdapter whole;
  whole.add("model.layers.0.self_attn.q_proj.weight", {64, 64});
  CHECK(loading(whole) == "weights: hold 1 tensors, none of them a low-rank factor");
}

TEST_CASE("wrappers of training are left out of names, and that is said") {
  const std::string q = "model.layers.0.self_attn.q_proj";
  for (const std::string& name :
       {"base_model.model._orig_mod." + q, "module.base_model.model." + q,
        "_orig_mod.module.base_model.model." + q,
        std::string("base_model.model.model.layers.0._checkpoint_wrapped_module.self_attn.q_proj"),
        std::string("base_model.model.model.layers.0._fsdp_wrapped_module.self_attn.q_proj")}) {
    CAPTURE(name);
    MadeAdapter made;
    made.add(name + ".lora_A.weight", {2, 64}).add(name + ".lora_B.weight", {64, 2});
    const TempFolder temp;
    made.write(temp.path("a"));
    const LoadedAdapter loaded = load_adapter(temp.path("a"), {});
    CHECK(loaded.adapter.dense.count(q) == 1);
    CHECK(loaded.files.tensors.count(a_name(q)) +
              loaded.files.tensors.count(q + ".lora_A.weight") ==
          1);
    REQUIRE(!loaded.notes.empty());
    CHECK(loaded.notes.front().starts_with("2 names hold what "));
  }
}

TEST_CASE("a second spelling with the same bytes is left out, with others it is refused") {
  const std::string q = "model.layers.0.self_attn.q_proj";
  const auto twins = [&](bool same) {
    MadeAdapter made = plain();
    for (const char* end : {".lora_A.weight", ".lora_B.weight"}) {
      const Shape shape = std::string(end)[6] == 'A' ? Shape{2, 64} : Shape{64, 2};
      same ? made.copy(q + end, "base_model.model." + q + end) : made.add(q + end, shape);
    }
    return made;
  };
  const LoadedAdapter loaded = twins(true).read();
  CHECK(loaded.twins.size() == 2);
  CHECK(loaded.files.tensors.size() == 2);
  CHECK(loaded.adapter.dense.size() == 1);
  CHECK(error_text([&] { twins(false).read(); }).find("names the same factor as") !=
        std::string::npos);
}

TEST_CASE("so is a numbered expert's") {
  const std::string e = "model.layers.1.mlp.experts.0.";
  MadeAdapter made;
  made.pair(e + "gate_proj", {2, 64}, {24, 2})
      .copy(a_name(e + "w1"), a_name(e + "gate_proj"))
      .copy(b_name(e + "w1"), b_name(e + "gate_proj"));
  const LoadedAdapter loaded = made.read("qwen3_moe");
  CHECK(loaded.twins.size() == 2);
  CHECK(loaded.files.tensors.size() == 2);
}

TEST_CASE("codes that need scales are not cast, and nothing says that they were") {
  const auto with = [](const std::string& dtype) {
    const std::string q = "base_model.model.model.layers.0.self_attn.q_proj.lora_";
    std::string header = "{\"" + q + "A.weight\":{\"dtype\":\"" + dtype +
                         "\",\"shape\":[2,4],\"data_offsets\":[0,8]},\"" + q +
                         "B.weight\":{\"dtype\":\"" + dtype +
                         "\",\"shape\":[4,2],\"data_offsets\":[8,16]}}";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    std::string bytes(8, '\0');
    for (size_t i = 0; i < 4; ++i) bytes[i] = static_cast<char>(header.size() >> (8 * i) & 0xFF);
    const TempFolder temp;
    std::filesystem::create_directories(temp.path("a"));
    std::ofstream(temp.path("a/adapter_config.json")) << R"({"r": 2, "lora_alpha": 4})";
    std::ofstream(temp.path("a/adapter_model.safetensors"))
        << bytes + header + std::string(16, '\0');
    CHECK(error_text([&] { load_adapter(temp.path("a"), {}); }).empty());
    return error_text([&] { load_adapter(temp.path("a"), {}, DType::BF16); });
  };
  CHECK(with("I8").find("is I8, which cannot be cast to BF16") != std::string::npos);
  CHECK(with("F8_E4M3").find("is F8_E4M3, which cannot be cast") != std::string::npos);
}
