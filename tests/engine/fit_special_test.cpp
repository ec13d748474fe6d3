// Repairs of one engine's or one family's special cases.

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "tests/adapter/goldens.h"
#include "tests/engine/fitted.h"
#include "tests/io/error_text.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const std::string kConfig = R"({"r": 2, "lora_alpha": 4})";
const std::string kGdn = "model.language_model.layers.0.linear_attn.";

// The catalogue's Qwen3.5: H 64, rows of in_proj_qkv and in_proj_z as its config says.
const LinearSpec& gdn(const ModelSpec& spec, const std::string& name) {
  return *spec.find_linear(kGdn + name);
}

MadeAdapter experts(const std::string& config,
                    const std::vector<std::string>& names = {"gate_proj", "up_proj", "down_proj"}) {
  MadeAdapter made(config);
  for (int e = 0; e < 8; ++e)
    for (const std::string& name : names) {
      const std::string module = "model.layers.1.mlp.experts." + std::to_string(e) + "." + name;
      if (name == "down_proj")
        made.pair(module, {2, 24}, {64, 2});
      else
        made.pair(module, {2, 64}, {24, 2});
    }
  return made;
}

std::string b_change(const Tensor& b) { return b.pieces().front().source->change(); }

}  // namespace

TEST_CASE("Qwen3.5's in_proj_qkv becomes the four slices that SGLang joins") {
  const ModelSpec spec = catalogue_base("../families/qwen3_5_moe").spec;
  const LinearSpec &qkv = gdn(spec, "in_proj_qkv"), &z = gdn(spec, "in_proj_z");
  const int64_t key = (qkv.out - z.out) / 2;
  MadeAdapter made(kConfig);
  made.pair(kGdn + "in_proj_qkv", {2, qkv.in}, {qkv.out, 2});
  const auto c = converted(made, "../families/qwen3_5_moe", fit_for("sglang"));
  const std::string stem = "base_model.model." + kGdn;
  const Tensor& whole = made.tensors().at(stem + "in_proj_qkv.lora_B.weight");
  const std::vector<std::pair<std::string, Tensor>> slices{
      {"in_proj_q", whole.slice(0, 0, key)},
      {"in_proj_k", whole.slice(0, key, key)},
      {"in_proj_v", whole.slice(0, 2 * key, z.out)}};
  for (const auto& slice : slices) {
    const std::string& name = slice.first;
    const Tensor& b = slice.second;
    CAPTURE(name);
    CHECK(c.tensors.at(stem + name + ".lora_B.weight").read() == b.read());
    CHECK(c.tensors.at(stem + name + ".lora_A.weight").read() ==
          made.tensors().at(stem + "in_proj_qkv.lora_A.weight").read());
  }
  CHECK(all_zero(c.tensors.at(stem + "in_proj_z.lora_B.weight")));
  CHECK(c.tensors.count(stem + "in_proj_qkv.lora_B.weight") == 0);
  CHECK(c.config.find("target_modules")->dump(-1) == R"(["in_proj_qkvz"])");
  CHECK(fitted(made, "../families/qwen3_5_moe", fit_for("vllm")).changes.made.empty());
}

TEST_CASE("a tokenizer's added_tokens.json beyond the vocabulary does not go to SGLang") {
  const TempFolder temp;
  MadeAdapter made(kConfig);
  add_attention(made, 1, "o_proj");
  made.write(temp.path + "/in");
  const auto written = [&](const std::string& tokens, const std::string& engine) {
    std::ofstream(temp.path + "/in/added_tokens.json") << tokens;
    PlanOptions convert;
    convert.load.base = std::string(MOELORA_TEST_DATA) + "/catalogue/qwen3_moe";
    const FittedConversion out =
        plan_fitted(load_adapter(temp.path + "/in", convert.load), fit_for(engine), convert);
    WriteFolderOptions write;
    write.output = {true, false};
    write_conversion(out.conversion, temp.path + "/out", write);
    return std::filesystem::exists(temp.path + "/out/added_tokens.json");
  };
  CHECK_FALSE(written(R"({"<a>": 159, "<b>": 160})", "sglang"));
  CHECK(written(R"({"<a>": 159, "<b>": 160})", "vllm"));
  CHECK(written(R"({"<a>": 159})", "sglang"));
  CHECK(written("no JSON", "sglang"));
}

TEST_CASE("F16 experts that SGLang would scale to infinity become F32, all others stay") {
  const auto fit_f16 = [](double alpha) {
    LoadedAdapter read =
        experts(R"({"r": 2, "lora_alpha": )" + std::to_string(alpha) + "}").read("qwen3_moe");
    for (auto& entry : read.adapter.experts)
      for (Tensor& part : entry.second.b.parts)
        part = cast_tensors({{"b", part}}, DType::F16).at("b");
    return fit_adapter(read, fit_for("sglang"));
  };
  const FittedAdapter wide = fit_f16(100), narrow = fit_f16(1);
  const Tensor& b = wide.adapter.experts.at({1, Projection::down}).b.at(3);
  CHECK(b.dtype() == DType::F32);
  CHECK(b_change(b).find("cast F16 to F32 (exact)") != std::string::npos);
  CHECK(note_of(wide.changes, "wide-range").find("times 50 would be infinite") !=
        std::string::npos);
  CHECK(narrow.adapter.experts.at({1, Projection::down}).b.at(3).dtype() == DType::F16);
  CHECK(narrow.changes.made.empty());
}

TEST_CASE("experts of one PEFT parameter get one scale") {
  const std::string patterns = R"("alpha_pattern": {"experts.3.down_proj": 8, "up_proj": 1}})";
  for (const bool rslora : {false, true}) {
    CAPTURE(rslora);
    const MadeAdapter made = experts(R"({"r": 2, "lora_alpha": 4, "use_rslora": )" +
                                     std::string(rslora ? "true" : "false") + ", " + patterns);
    const auto c = converted(made, "qwen3_moe", fit_for("peft"));
    CHECK(c.to->id == "peft-params");
    CHECK(b_change(c.adapter.experts.at({1, Projection::down}).b.at(3)) == "scaled by 2 (exact)");
    CHECK(b_change(c.adapter.experts.at({1, Projection::down}).b.at(2)).empty());
    CHECK(c.config.find("use_rslora")->as_bool() == rslora);
    CHECK(note_of(*c.changes, "even-experts").find("have one scale") != std::string::npos);
  }
  CHECK(converted(experts("{\"r\": 2, \"lora_alpha\": 4, " + patterns), "qwen3_moe",
                  fit_for("peft@0.18"))
            .changes->made.empty());
}

TEST_CASE("shared experts become PEFT's parameters where it would take their names away") {
  MadeAdapter made(R"({"r": 2, "lora_alpha": 4, "lora_dropout": 0.1})");
  const ModelSpec spec = catalogue_base("glm4_moe").spec;
  std::vector<std::string> expected;
  for (const LinearSpec& linear : spec.linears) {
    if (linear.role != Role::shared_expert) continue;
    made.pair(linear.memory, {2, linear.in}, {linear.out, 2});
    expected.push_back(linear.memory + ".weight");
  }
  const auto c = converted(made, "glm4_moe", fit_for("peft"));
  std::vector<std::string> named;
  for (const Json& name : c.config.find("target_parameters")->items())
    named.push_back(name.as_string());
  std::sort(named.begin(), named.end());
  std::sort(expected.begin(), expected.end());
  CHECK(!expected.empty());
  CHECK(named == expected);
  CHECK(c.config.find("lora_dropout")->as_double() == 0);
  const auto old = converted(made, "glm4_moe", fit_for("peft@0.18"));  // transformers 4: modules
  CHECK(old.config.find("lora_dropout")->as_double() == 0.1);
}

TEST_CASE("PEFT's parameters get no dropout, and refuse DoRA and biases beside them") {
  const auto c = converted(experts(R"({"r": 2, "lora_alpha": 4, "lora_dropout": 0.1})"),
                           "qwen3_moe", fit_for("peft"));
  CHECK(c.config.find("lora_dropout")->as_double() == 0);
  const auto kept = converted(experts(R"({"r": 2, "lora_alpha": 4, "lora_dropout": 0.1})"),
                              "qwen3_moe", fit_for("peft@0.18"));
  CHECK(kept.config.find("lora_dropout")->as_double() == 0.1);
  for (const char* key : {"use_dora", "lora_bias"}) {
    CAPTURE(key);
    const MadeAdapter made =
        experts(R"({"r": 2, "lora_alpha": 4, ")" + std::string(key) + R"(": true})");
    CHECK(error_text([&] {
            fit_adapter(made.read("qwen3_moe"), fit_for("peft"));
          }).find("PEFT refuses \"" + std::string(key) + "\" beside target_parameters") !=
          std::string::npos);
  }
}
