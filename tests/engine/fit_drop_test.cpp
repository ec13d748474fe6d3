// What an engine has no place for is refused, or dropped at the user's word and measured.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "lib/adapter/delta_pair.h"
#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/io/weights.h"
#include "tests/engine/fitted.h"
#include "tests/io/error_text.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const std::string kConfig = R"({"r": 2, "lora_alpha": 4, "bias": "lora_only", "lora_bias": true,
                                "modules_to_save": ["lm_head"]})";
const std::string kPrefix = "base_model.model.";

MadeAdapter attention(const std::string& config = R"({"r": 2, "lora_alpha": 4})") {
  MadeAdapter made(config);
  for (const char* name : {"q_proj", "v_proj"}) add_attention(made, 1, name);
  return made;
}

double norm(const std::vector<double>& values) {
  double sum = 0;
  for (double v : values) sum += v * v;
  return std::sqrt(sum);
}

std::string refusal(const MadeAdapter& made, const std::string& engine,
                    const std::string& family = "qwen3_moe") {
  return error_text([&] { fit_adapter(made.read(family), fit_for(engine)); });
}

std::string hint(const MadeAdapter& made, const std::string& engine) {
  return error_hint([&] { fit_adapter(made.read("qwen3_moe"), fit_for(engine)); });
}

}  // namespace

TEST_CASE("a delta's norm is that of the product of its factors") {
  MadeAdapter made;
  add_attention(made, 1, "q_proj");
  const DensePair pair = made.read("qwen3_moe").adapter.dense.begin()->second;
  const double expected = norm(delta_of(pair.a, pair.b, pair.scaling));
  CHECK(delta_norm({pair.a, pair.b, pair.scaling.value()}) ==
        doctest::Approx(expected).epsilon(1e-12));
  const std::vector<Delta> two(2, {pair.a, pair.b, -pair.scaling.value()});
  CHECK(delta_norm(two, 1) == doctest::Approx(std::sqrt(2.0) * expected).epsilon(1e-12));
}

TEST_CASE("SGLang has no place for a router; dropped, its share is reported") {
  MadeAdapter made = attention();
  made.pair("model.layers.1.mlp.gate", {2, 64}, {8, 2});
  CHECK(refusal(made, "sglang") == "model.layers.1.mlp.gate: SGLang has no place for it");
  CHECK(hint(made, "sglang") == "--drop router leaves it out and says what is lost");
  const Adapter before = made.read("qwen3_moe").adapter;
  const FittedAdapter out = fitted(made, "qwen3_moe", fit_for("sglang", {}, {"router"}));
  CHECK(out.adapter.dense.size() == 2);
  REQUIRE(out.changes.left_out.size() == 1);
  const LeftOut& part = out.changes.left_out.front();
  CHECK(part.kind == "router");
  CHECK(part.modules == std::vector<std::string>{"model.layers.1.mlp.gate"});
  const DensePair& gate = before.dense.at("model.layers.1.mlp.gate");
  CHECK(*part.norm == doctest::Approx(norm(delta_of(gate.a, gate.b, gate.scaling))).epsilon(1e-9));
  double whole = 0;
  for (const auto& entry : before.dense)
    whole = std::hypot(whole, norm(delta_of(entry.second.a, entry.second.b, entry.second.scaling)));
  CHECK(part.whole == doctest::Approx(whole).epsilon(1e-9));
  CHECK(note_of(out.changes, "drop").find("% of the whole") != std::string::npos);
}

TEST_CASE("vLLM and PEFT keep a router that their classes have") {
  MadeAdapter made = attention();
  made.pair("model.layers.1.mlp.gate", {2, 64}, {8, 2});
  for (const char* engine : {"vllm", "peft"})
    CHECK(converted(made, "qwen3_moe", fit_for(engine)).adapter.dense.size() == 3);
}

TEST_CASE("vLLM's plan names the router that its class refuses, and the flag that drops it") {
  MadeAdapter made = attention();
  made.pair("model.layers.1.mlp.gate", {2, 64}, {8, 2});
  const auto convert = [&] { converted(made, "glm4_moe", fit_for("vllm@0.30")); };
  CHECK(
      error_text(convert).find("vllm@0.30: would refuse the output: ValueError: While loading out, "
                               "expected target modules in") == 0);
  CHECK(error_hint(convert) == "--drop router leaves it out and says what is lost");
  CHECK(converted(made, "glm4_moe", fit_for("vllm@0.30", {}, {"router"})).adapter.dense.size() ==
        2);
  CHECK(converted(made, "glm4_moe", fit_for("vllm@0.31")).adapter.dense.size() == 3);
}

TEST_CASE("biases are refused by servers, or dropped and cleared from the config") {
  MadeAdapter made = attention(kConfig);
  made.add(kPrefix + "model.layers.1.self_attn.q_proj.lora_B.bias", {64});
  for (const char* engine : {"sglang", "vllm"}) {
    CAPTURE(engine);
    CHECK(refusal(made, engine).find("model.layers.1.self_attn.q_proj.lora_B.bias: ") == 0);
    const auto c = converted(made, "qwen3_moe", fit_for(engine, {}, {"bias"}));
    CHECK(c.adapter.extras.empty());
    CHECK(c.config.find("bias")->as_string() == "none");
    CHECK_FALSE(c.config.find("lora_bias")->as_bool());
    CHECK(c.config.find("modules_to_save")->is(Json::Kind::null));
    CHECK(note_of(*c.changes, "plain-config").find("bias \"none\"") != std::string::npos);
    const Tensor bias = made.tensors().at(kPrefix + "model.layers.1.self_attn.q_proj.lora_B.bias");
    std::vector<double> values;
    for (float v : floats(bias)) values.push_back(2.0 * static_cast<double>(v));
    CHECK(*c.changes->left_out.front().norm == doctest::Approx(norm(values)).epsilon(1e-9));
  }
  CHECK(converted(made, "qwen3_moe", fit_for("peft")).config.find("lora_bias")->as_bool());
}

TEST_CASE("what a saved module changed is measured against the base, where its weights are") {
  MadeAdapter made = attention();
  made.add(kPrefix + "lm_head.weight", {160, 64});
  CHECK(refusal(made, "vllm") == "lm_head.weight: vLLM has no place for it");
  const FittedAdapter out = fitted(made, "qwen3_moe", fit_for("vllm", {}, {"saved-modules"}));
  CHECK_FALSE(out.changes.left_out.front().norm);  // the catalogue has configs only
  CHECK(note_of(out.changes, "drop").find("not known") != std::string::npos);

  PlanOptions convert;
  const std::string family = std::string(MOELORA_TEST_DATA) + "/gpt_oss";
  convert.load.base = family + "/base";
  LoadedAdapter input = load_adapter(family + "/lm_head_saved", convert.load);
  const FitOptions options = fit_for("vllm", {}, {"saved-modules"});
  CHECK(fit_adapter(input, options).changes.left_out.front().norm == 0.0);  // saved, never trained
  Tensor& saved = input.adapter.extras.at("lm_head.weight").tensor;
  saved = Tensor::zeros(saved.dtype(), saved.shape());
  const LeftOut part = fit_adapter(input, options).changes.left_out.front();
  const Tensor base = open_weights(family + "/base", {"model"}).tensors.at("lm_head.weight");
  CHECK(part.norm.value() == doctest::Approx(norm(read_double(base))).epsilon(1e-12));
  CHECK(part.whole > *part.norm);
}

TEST_CASE("an adapter of text and vision is split into two, each measured") {
  const std::string visual = "model.visual.blocks.0.attn.proj";
  MadeAdapter made;
  made.pair("model.language_model.layers.1.self_attn.q_proj", {2, 60}, {72, 2})
      .pair("model.language_model.layers.1.self_attn.v_proj", {2, 60}, {24, 2})
      .pair(visual, {2, 48}, {48, 2});
  const std::string family = "../families/qwen3_vl_moe";
  CHECK(refusal(made, "sglang", family) == visual + ": SGLang has no place for it");
  const auto for_vllm = [&] { converted(made, family, fit_for("vllm")); };
  CHECK(error_text(for_vllm).find("vllm@") == 0);
  CHECK(error_hint(for_vllm) == "--drop vision leaves it out and says what is lost");

  const auto kept = [&](const char* engine, const char* drop) {
    const FittedAdapter out = fitted(made, family, fit_for(engine, {}, {drop}));
    REQUIRE(out.changes.left_out.size() == 1);
    CHECK(out.changes.left_out.front().norm.value() < out.changes.left_out.front().whole);
    REQUIRE(out.adapter.dense.size() == (std::string(drop) == "text" ? 1 : 2));
    return out.adapter.dense.begin()->first;
  };
  for (const char* engine : {"sglang", "vllm", "peft"})
    CHECK(kept(engine, "vision").ends_with("layers.1.self_attn.q_proj"));
  CHECK(kept("peft", "text") == visual);
  const auto towers = fitted(made, family, fit_for("peft", {}, {"text"})).changes.made;
  CHECK(std::any_of(towers.begin(), towers.end(), [](const Change& change) {
    return change.note == "not checked: what PEFT makes of the towers' factors";
  }));
  CHECK(error_text([&] { fitted(attention(), "qwen3_moe", fit_for("peft", {}, {"text"})); }) ==
        "--drop text: the adapter has no factors of a vision or audio tower, so that nothing would "
        "be left");
}

TEST_CASE("to drop both halves leaves nothing, and factors that are no floats are refused") {
  const std::string family = "../families/qwen3_vl_moe";
  MadeAdapter made;
  made.pair("model.language_model.layers.1.self_attn.q_proj", {2, 60}, {72, 2})
      .pair("model.visual.blocks.0.attn.proj", {2, 48}, {48, 2});
  CHECK(error_text([&] {
          fitted(made, family, fit_for("peft", {}, {"text", "vision"}));
        }) == "--drop text: with vision leaves nothing");
  MadeAdapter codes = attention();
  const std::string name = a_name("model.layers.1.self_attn.q_proj");
  codes.set(name, Tensor::zeros(DType::I8, codes.tensors().at(name).shape()));
  CHECK(refusal(codes, "vllm") ==
        "model.layers.1.self_attn.q_proj.lora_A: is I8, and servers compute with F32, F16 and BF16 "
        "factors alone");
}

TEST_CASE("a value head is no part of what a server computes") {
  MadeAdapter made = attention();
  made.add("v_head.summary.weight", {1, 64}).add("v_head.summary.bias", {1});
  for (const char* engine : {"sglang", "vllm"}) {
    CHECK(refusal(made, engine) == std::string("v_head.summary.bias: ") +
                                       (engine[0] == 's' ? "SGLang" : "vLLM") +
                                       " has no place for it, nor for 1 more of its kind");
    CHECK(hint(made, engine) == "--drop value-head leaves it out and says what is lost");
    const FittedAdapter out = fitted(made, "qwen3_moe", fit_for(engine, {}, {"value-head"}));
    CHECK(out.adapter.extras.empty());
    CHECK(note_of(out.changes, "drop").find("it scores texts") != std::string::npos);
  }
}

TEST_CASE("the frozen weight beside an adapted embedding is left out; a resized one is refused") {
  MadeAdapter made = attention();
  made.pair("lm_head", {2, 64}, {160, 2});
  made.add(kPrefix + "lm_head.base_layer.weight", {160, 64});
  const FittedAdapter out = fitted(made, "qwen3_moe", fit_for("vllm"));
  CHECK(out.adapter.extras.empty());
  CHECK(note_of(out.changes, "drop").find("the base's own weight") != std::string::npos);
  made.remove(kPrefix + "lm_head.base_layer.weight");
  made.add(kPrefix + "lm_head.base_layer.weight", {168, 64});
  CHECK(refusal(made, "vllm") == "lm_head.base_layer.weight: vLLM has no place for it");
}

TEST_CASE("embeddings are dropped for a class that takes none") {
  MadeAdapter made = attention();
  made.pair("lm_head", {2, 64}, {160, 2});
  made.add(kPrefix + "model.embed_tokens.lora_embedding_A", {2, 160});
  made.add(kPrefix + "model.embed_tokens.lora_embedding_B", {64, 2});
  CHECK(converted(made, "qwen3_moe", fit_for("vllm")).adapter.extras.size() == 2);
  CHECK(refusal(made, "vllm", "olmoe") ==
        "lm_head: vLLM has no place for it, nor for 2 more of its kind");
  const auto c = converted(made, "olmoe", fit_for("vllm", {}, {"embeddings"}));
  CHECK(c.adapter.extras.empty());
  CHECK(c.adapter.dense.size() == 2);
  CHECK(c.changes->left_out.front().modules.size() == 3);
}

TEST_CASE("DoRA cannot be dropped: what it means is not the low-rank part") {
  MadeAdapter made = attention(R"({"r": 2, "lora_alpha": 4, "use_dora": true})");
  for (const char* engine : {"sglang", "vllm"})
    CHECK(refusal(made, engine).find("\"use_dora\" is true") != std::string::npos);
  made.add(kPrefix + "model.layers.1.self_attn.q_proj.lora_magnitude_vector", {64});
  CHECK(refusal(made, "sglang") ==
        "model.layers.1.self_attn.q_proj.lora_magnitude_vector: SGLang does not serve DoRA");
  CHECK(refusal(made, "peft").empty());
}

TEST_CASE("a variant of LoRA that no server computes is not written for one") {
  for (const std::string key :
       {R"("alora_invocation_tokens": [1])", R"("layer_replication": [[0, 2]])",
        R"("use_bdlora": {"a": 1})", R"("kasa_config": {})", R"("use_qalora": true)"}) {
    CAPTURE(key);
    const MadeAdapter made = attention(R"({"r": 2, "lora_alpha": 4, )" + key + "}");
    for (const char* engine : {"sglang", "vllm"})
      CHECK(refusal(made, engine).find(" has nothing of the kind, ") != std::string::npos);
    CHECK(refusal(made, "peft").empty());
  }
  const MadeAdapter off = attention(
      R"({"r": 2, "lora_alpha": 4, "layer_replication": null, "use_qalora": false, "velora_config": {}})");
  CHECK(refusal(off, "sglang").empty());
}

TEST_CASE("a --drop that is none is named with those that are") {
  CHECK(error_text([] { parse_drop("routers"); }) ==
        "--drop: unknown part 'routers' (did you mean 'router'?)");
  CHECK(error_hint([] { parse_drop("routers"); }) ==
        "parts: router, bias, saved-modules, embeddings, vision, text, value-head");
}
