// Which layout an engine, its version and its options get for a base, and under which names.

#include <doctest/doctest.h>

#include "lib/base/error.h"
#include "lib/engine/fit/engine_fit.h"
#include "lib/model/base_model.h"
#include "tests/engine/fitted.h"
#include "tests/io/error_text.h"

using namespace moelora;
using namespace moelora::test;

namespace {

struct Chosen {
  std::string engine, family, layout;
  std::vector<std::string> server;
  bool shared_outer = false;
};

LayoutChoice choice(const Chosen& c) {
  const FitOptions options = fit_for(c.engine, c.server);
  const ModelSpec spec = catalogue_base(c.family).spec;
  return choose_layout({options.engine, options.server, spec, c.shared_outer});
}

LayoutWriteOptions written(const std::string& engine, const std::string& family,
                           const std::vector<std::string>& server = {}) {
  const FitOptions options = fit_for(engine, server);
  const ModelSpec spec = catalogue_base(family).spec;
  return options.engine.engine->fit->write({options.engine, options.server, spec, false});
}

// The experts of layer 1 in a base of the catalogue with E experts, gated, H 64.
MadeAdapter experts(const std::string& stem, int count, int64_t inner) {
  MadeAdapter made(R"({"r": 2, "lora_alpha": 4})");
  for (int e = 0; e < count; ++e) {
    const std::string module = stem + std::to_string(e) + ".";
    made.pair(module + "gate_proj", {2, 64}, {inner, 2});
    made.pair(module + "up_proj", {2, 64}, {inner, 2});
    made.pair(module + "down_proj", {2, inner}, {64, 2});
  }
  return made;
}

MadeAdapter shared_outer(int64_t experts, int64_t inner) {
  MadeAdapter made(R"({"r": 2, "lora_alpha": 4})");
  const std::string stem = "model.layers.1.mlp.experts.";
  for (const char* name : {"w1", "w3"}) made.pair(stem + name, {1, 2, 64}, {experts, inner, 2});
  return made.pair(stem + "w2", {experts, 2, inner}, {1, 64, 2});
}

LoadedAdapter read_on(const MadeAdapter& made, const std::string& base) {
  AdapterFiles files;
  files.config = parse_adapter_config(parse_json(made.config(), "c.json"), "c.json");
  files.tensors = made.tensors();
  return interpret_adapter(std::move(files), open_base(base), "", {});
}

bool holds(const Conversion& c, const std::string& name) {
  return c.tensors.count("base_model.model." + name) != 0;
}

}  // namespace

TEST_CASE("every row of the layout table is reached by what it says") {
  for (const Chosen& c : std::vector<Chosen>{
           {"sglang", "qwen3_moe", "stacked", {}},
           {"sglang", "nemotron_h", "stacked", {}},
           {"sglang", "gpt_oss", "stacked-fused", {}},
           {"sglang@0.5.22", "qwen3_moe", "stacked-fused", {"virtual-experts=on"}},
           {"sglang@0.5.23", "qwen3_moe", "stacked", {"virtual-experts=on"}},
           {"sglang@0.5.23", "gpt_oss", "stacked-fused", {"virtual-experts=on"}},
           {"sglang", "nemotron_h", "stacked", {"virtual-experts=on"}},
           {"sglang@0.5.10rc0", "qwen3_moe", "peft-linear", {}},
           {"sglang@0.5.10rc0", "gpt_oss", "peft-linear", {}},
           {"sglang", "qwen3_moe", "shared-outer", {}, true},
           {"sglang", "gpt_oss", "stacked-fused", {}, true},
           {"sglang", "qwen3_moe", "stacked", {"experts-shared-outer-loras=off"}, true},
           {"sglang", "qwen3_moe", "shared-outer", {"experts-shared-outer-loras=on"}},
           {"vllm", "gpt_oss", "peft-params", {}},
           {"vllm", "qwen3_moe", "peft-linear", {}},
           {"vllm", "qwen3_moe", "peft-linear", {}, true},
           {"vllm", "gpt_oss", "peft-linear", {"mixed-moe-lora-format=on"}},
           {"vllm", "qwen3_moe", "shared-outer", {"moe-shared-loras=on"}, true},
           {"peft", "qwen3_moe", "peft-params", {}},
           {"peft@0.18", "qwen3_moe", "peft-linear", {}},
           {"peft@0.18", "gpt_oss", "peft-params", {}}}) {
    CAPTURE(c.engine);
    CAPTURE(c.family);
    CAPTURE(c.layout);
    CHECK(choice(c).layout->id == c.layout);
  }
}

TEST_CASE("PEFT's stacked sides are those of its release and of the base's parameters") {
  struct Row {
    const char *family, *version;
    Roles roles;
  };
  for (const Row& row :
       {Row{"gpt_oss", "0.18", Roles::natural}, Row{"gpt_oss", "0.19.0", Roles::swapped},
        Row{"gpt_oss", "0.19.1", Roles::natural}, Row{"llama4_text", "0.18", Roles::natural},
        Row{"llama4_text", "0.19.0", Roles::natural}, Row{"llama4_text", "0.19.1", Roles::swapped},
        Row{"qwen3_moe", "0.18", Roles::swapped}, Row{"qwen3_moe", "0.19.0", Roles::swapped},
        Row{"qwen3_moe", "0.19.1", Roles::natural}, Row{"qwen3_moe", "0.21", Roles::natural}}) {
    CAPTURE(row.family);
    CAPTURE(row.version);
    CHECK(written("peft@" + std::string(row.version), row.family).roles == row.roles);
  }
}

TEST_CASE(
    "vLLM before the last day of 2025 reads the columns of a stacked lora_B expert by expert") {
  CHECK(written("vllm@2025-12-30", "gpt_oss").b_order == BOrder::expert_major);
  CHECK(written("vllm@2025-12-31", "gpt_oss").b_order == BOrder::rank_major);
  CHECK(written("vllm", "gpt_oss").b_order == BOrder::rank_major);
}

TEST_CASE("experts are spelled as the server's class reads them") {
  const std::string mixtral = "model.layers.1.block_sparse_moe.experts.0.";
  const MadeAdapter made = experts("model.layers.1.mlp.experts.", 4, 48);
  CHECK(holds(converted(made, "mixtral", fit_for("vllm")), mixtral + "w1.lora_A.weight"));
  CHECK(holds(converted(made, "mixtral", fit_for("sglang", {}, {}, "peft-linear")),
              mixtral + "gate_proj.lora_A.weight"));
  CHECK(holds(converted(made, "gpt_oss", fit_for("vllm", {"mixed-moe-lora-format=on"}), false),
              "model.layers.1.mlp.experts.0.w1.lora_A.weight"));
  CHECK(holds(converted(made, "granitemoe", fit_for("vllm")),
              "model.layers.1.block_sparse_moe.experts.0.gate_proj.lora_A.weight"));
}

TEST_CASE("SGLang's config names suffixes in a plain list, whatever the input said") {
  for (const char* targets : {R"("q_proj|.*experts.*")", R"(["w1", "w2", "w3"])", "null",
                              R"(["model.layers.1.mlp.experts.0.gate_proj"])"}) {
    CAPTURE(targets);
    MadeAdapter made(std::string(R"({"r": 2, "lora_alpha": 4, "target_parameters": ["a.b"],
                                     "exclude_modules": ["x"], "layers_to_transform": [1],
                                     "target_modules": )") +
                     targets + "}");
    const MadeAdapter some = experts("model.layers.1.mlp.experts.", 8, 24);
    for (const auto& entry : some.tensors()) made.add(entry.first, entry.second.shape());
    add_attention(made, 1, "o_proj");
    const Json config = converted(made, "qwen3_moe", fit_for("sglang")).config;
    CHECK(config.find("target_modules")->dump(-1) ==
          R"(["down_proj", "gate_proj", "o_proj", "up_proj"])");
    for (const char* key : {"target_parameters", "exclude_modules", "layers_to_transform"})
      CHECK(config.find(key)->is(Json::Kind::null));
  }
}

TEST_CASE(
    "shared outer factors stay shared where the server takes them, else each expert gets one") {
  const MadeAdapter made = shared_outer(8, 24);
  const std::string stem = "model.layers.1.mlp.experts.";
  const auto kept = converted(made, "qwen3_moe", fit_for("sglang"));
  CHECK(kept.tensors.at("base_model.model." + stem + "w1.lora_A.weight").dim(0) == 1);
  const auto off =
      converted(made, "qwen3_moe", fit_for("sglang", {"experts-shared-outer-loras=off"}));
  CHECK(off.tensors.at("base_model.model." + stem + "gate_proj.lora_A.weight").dim(0) == 8);
  CHECK(holds(converted(made, "qwen3_moe", fit_for("vllm")), stem + "7.gate_proj.lora_A.weight"));
  CHECK(holds(converted(made, "qwen3_moe", fit_for("vllm", {"moe-shared-loras=on"})),
              stem + "w3.lora_B.weight"));
}

TEST_CASE(
    "shared outer factors with a lora_A for gate and one for up become one that stays shared") {
  const auto c =
      converted(shared_outer(8, 24), "qwen3_moe", fit_for("sglang@0.5.22", {"virtual-experts=on"}));
  const std::string stem = "base_model.model.model.layers.1.mlp.experts.";
  CHECK(c.tensors.at(stem + "gate_up_proj.lora_A.weight").shape() == Shape{1, 4, 64});
  CHECK(c.tensors.at(stem + "gate_up_proj.lora_B.weight").shape() == Shape{8, 48, 4});
  CHECK(c.tensors.at(stem + "down_proj.lora_B.weight").shape() == Shape{1, 64, 4});
}

TEST_CASE("what differs between experts is not made shared for a server that wants it so") {
  CHECK_THROWS_WITH_AS(converted(experts("model.layers.1.mlp.experts.", 8, 24), "qwen3_moe",
                                 fit_for("vllm", {"moe-shared-loras=on"})),
                       doctest::Contains("differs between experts 0 and 1"), Error);
}

TEST_CASE("modules of a text model are renamed for the wrapper that is served") {
  const std::string base = "Qwen/Qwen3-VL-30B-A3B-Instruct";
  MadeAdapter made(R"({"r": 2, "lora_alpha": 4})");
  made.pair("model.layers.3.self_attn.o_proj", {2, 4096}, {2048, 2});
  for (const char* engine : {"vllm", "sglang", "peft"}) {
    CAPTURE(engine);
    const FitOptions options = fit_for(engine);
    FittedConversion out = plan_fitted(read_on(made, base), options, {});
    check_served(out.conversion, "out", options, 0);
    CHECK(holds(out.conversion, "model.language_model.layers.3.self_attn.o_proj.lora_A.weight"));
    CHECK(note_of(*out.conversion.changes, "module-names").find("model.layers.3") !=
          std::string::npos);
  }
}

TEST_CASE("a renamed module must have the base's shape") {
  MadeAdapter made(R"({"r": 2, "lora_alpha": 4})");
  made.pair("model.layers.3.self_attn.o_proj", {2, 2048}, {2048, 2});
  CHECK_THROWS_WITH_AS(
      fit_adapter(read_on(made, "Qwen/Qwen3-VL-30B-A3B-Instruct"), fit_for("vllm")),
      doctest::Contains("adapts 2048 -> 2048, but model.language_model.layers.3"), Error);
}

TEST_CASE("a layout that the engine does not serve is refused in the server's words") {
  const auto convert = [] {
    converted(experts("model.layers.1.mlp.experts.", 8, 24), "qwen3_moe",
              fit_for("vllm", {}, {}, "stacked"));
  };
  CHECK(
      error_text(convert).find("vllm@0.33: would refuse the output: ValueError: While loading out, "
                               "expected target modules in") == 0);
  CHECK(error_hint(convert) == "leave --to out: the engine's own layout is then chosen");
}

TEST_CASE("without a base model nothing is fitted") {
  CHECK_THROWS_WITH_AS(fit_adapter(MadeAdapter().pair("q", {2, 4}, {4, 2}).read(), fit_for("vllm")),
                       doctest::Contains("depends on the base model, and none is known"), Error);
}
