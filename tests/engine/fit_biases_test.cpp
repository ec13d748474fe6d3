// LoRA of the experts' biases (gpt-oss, target_parameters): PEFT is given the same file again,
// servers only what is left by --drop bias.

#include <doctest/doctest.h>

#include <bit>
#include <set>

#include "lib/adapter/adapter.h"
#include "lib/adapter/tensor_name.h"
#include "tests/engine/fitted.h"
#include "tests/io/error_text.h"

using namespace moelora;
using namespace moelora::test;

namespace {

// In the order of the class.
const std::vector<std::string> kParameters = {"gate_up_proj", "gate_up_proj_bias", "down_proj",
                                              "down_proj_bias"};

// Of the parameters whose bits are set; PEFT wraps the first of them innermost.
MadeAdapter made_of(unsigned parameters) {
  const ModelSpec spec = catalogue_base("gpt_oss").spec;
  const int64_t e = spec.experts, in = spec.hidden, wide = 2 * spec.intermediate;
  const std::vector<std::pair<Shape, Shape>> shapes = {{{2 * e, in}, {wide, 2 * e}},
                                                       {{2, wide}, {e, 2}},
                                                       {{2 * e, spec.intermediate}, {in, 2 * e}},
                                                       {{2, in}, {e, 2}}};
  std::vector<std::string> named;
  for (size_t i = 0; i < kParameters.size(); ++i)
    if ((parameters >> i & 1U) != 0) named.push_back("mlp.experts." + kParameters[i]);
  MadeAdapter made(R"({"r": 2, "lora_alpha": 4, "lora_B_layout": "rank_major", "target_modules": )"
                   R"(["q_proj", "k_proj", "v_proj", "o_proj"], "target_parameters": )" +
                   Json::strings(named).dump(-1) + "}");
  for (int layer = 0; layer < spec.layers; ++layer) {
    for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"})
      add_attention(made, layer, name);
    size_t inside = named.size();
    for (size_t i = 0; i < kParameters.size(); ++i) {
      if ((parameters >> i & 1U) == 0) continue;
      --inside;
      std::string module = spec.expert_stem(Form::memory, layer);
      for (size_t level = 0; level < inside; ++level) module += ".base_layer";
      made.pair(module, shapes[i].first, shapes[i].second);
    }
  }
  return made;
}

std::set<std::string> targets(const Conversion& c) {
  std::set<std::string> out;
  for (const Json& name : c.config.find("target_parameters")->items()) out.insert(name.as_string());
  return out;
}

bool has_weight(unsigned parameters) { return (parameters & 0b0101U) != 0; }
bool has_bias(unsigned parameters) { return (parameters & 0b1010U) != 0; }

}  // namespace

TEST_CASE("PEFT is given the experts' biases as they are, beside any of the weights") {
  for (unsigned parameters = 1; parameters < 16; ++parameters) {
    if (!has_weight(parameters)) continue;
    CAPTURE(parameters);
    const MadeAdapter made = made_of(parameters);
    const Conversion c = converted(made, "gpt_oss", fit_for("peft"));
    CHECK(c.tensors.size() == made.tensors().size());
    for (const auto& entry : made.tensors()) {
      CAPTURE(entry.first);
      REQUIRE(c.tensors.count(entry.first) == 1);
      CHECK(identical(c.tensors.at(entry.first), entry.second));
    }
    CHECK(targets(c).size() == static_cast<size_t>(std::popcount(parameters)));
  }
}

TEST_CASE("servers are given what is left without the experts' biases, where --drop bias says so") {
  for (const char* engine : {"sglang", "vllm"})
    for (unsigned parameters = 1; parameters < 16; ++parameters) {
      if ((parameters & 0b0101U) != 0b0101U || !has_bias(parameters)) continue;
      CAPTURE(engine);
      CAPTURE(parameters);
      const MadeAdapter made = made_of(parameters);
      CHECK(error_hint([&] { converted(made, "gpt_oss", fit_for(engine)); }) ==
            "--drop bias leaves it out and says what is lost");
      const Conversion c = converted(made, "gpt_oss", fit_for(engine, {}, {"bias"}));
      const Conversion plain = converted(made_of(0b0101U), "gpt_oss", fit_for(engine));
      CHECK(c.tensors.size() == plain.tensors.size());
      for (const auto& entry : c.tensors) CHECK(plain.tensors.count(entry.first) == 1);
      CHECK(note_of(*c.changes, "drop").find("_proj_bias") != std::string::npos);
    }
}

TEST_CASE("experts' biases alone, and layouts without a place for them, are refused") {
  CHECK(error_text([] {
          made_of(0b1010U).read("gpt_oss");
        }).find("adapts the experts' biases alone") != std::string::npos);
  CHECK(error_text([] {
          made_of(0b1111U).convert("stacked", "gpt_oss");
        }).find("adapts the experts' biases, which stacked cannot hold") != std::string::npos);
}
