// Models whose modules are not the same in the hub's files and in memory, and values that differ by
// layer or class.

#include <doctest/doctest.h>

#include "lib/base/error.h"
#include "lib/model/model_builder.h"
#include "tests/io/error_text.h"
#include "tests/model/catalogue.h"

using namespace moelora;

namespace {

// `changes` is a JSON object, merged into the config or into its text_config.
ModelSpec spec_of(const std::string& family, const std::string& changes = "{}") {
  Json config = read_json_file(later_entry(family).config);
  const Json changed = parse_json(changes, "changes");
  for (const auto& [key, value] : changed.members()) config.set(key, value);
  return make_model_spec(config, "config.json");
}

Shape shape_in(const ModelSpec& spec, Form form, const std::string& name) {
  for (const auto& [found, shape] : spec.tensors(form))
    if (found == name) return shape;
  return {};
}

}  // namespace

TEST_CASE("modules that are joined in one form are listed apart in the other, each in its own") {
  const ModelSpec spec = spec_of("sarvam_moe");
  const std::string joined = "model.layers.0.attention.query_key_value",
                    q = "model.layers.0.self_attn.q_proj";
  CHECK(shape_in(spec, Form::hub, joined + ".weight") == Shape{120, 60});
  CHECK(shape_in(spec, Form::memory, joined + ".weight").empty());
  CHECK(shape_in(spec, Form::memory, q + ".weight") == Shape{72, 60});
  CHECK(shape_in(spec, Form::hub, q + ".weight").empty());
  REQUIRE(spec.find_linear(joined) != nullptr);
  CHECK_FALSE(spec.find_linear(joined)->in_memory);
  CHECK_FALSE(spec.find_linear(q)->in_hub);
  CHECK(spec.normalised("model.layers.0.attention.dense") == "model.layers.0.self_attn.o_proj");
}

TEST_CASE("what is saved as it is in memory has one form") {
  const ModelSpec whole = spec_of("inkling"), text = spec_of("inkling_text");
  CHECK(text.tensors(Form::hub) == text.tensors(Form::memory));
  CHECK(text.hub.gate_up == "gate_up_proj");
  CHECK(required_gate_up_order(text, text.hub) == GateUpOrder::halves);
  CHECK(required_gate_up_order(whole, whole.hub) == GateUpOrder::interleaved);
  CHECK(required_gate_up_order(whole, whole.memory) == GateUpOrder::halves);
}

TEST_CASE("an lm_head that the hub pads has another size in memory") {
  const ModelSpec spec = spec_of("inkling2");
  CHECK(shape_in(spec, Form::memory, "lm_head.weight") == Shape{98, 60});
  CHECK(shape_in(spec, Form::hub, "model.llm.unembed.weight") == Shape{104, 60});
  CHECK(shape_in(spec, Form::hub, "lm_head.weight").empty());
}

TEST_CASE("heads may differ by layer, and are unknown of the whole model then") {
  const ModelSpec same = spec_of("laguna");
  CHECK(same.heads == 6);
  const ModelSpec spec = spec_of("laguna", R"({"num_attention_heads_per_layer": [6, 4]})");
  CHECK(spec.heads == 0);
  CHECK(spec.find_linear("model.layers.0.self_attn.q_proj")->out == 72);
  CHECK(spec.find_linear("model.layers.1.self_attn.q_proj")->out == 48);
  CHECK(spec.find_linear("model.layers.1.self_attn.o_proj")->in == 48);
  CHECK(spec.find_linear("model.layers.1.self_attn.g_proj")->out == 4);
  CHECK(error_text([] {
          spec_of("laguna", R"({"num_attention_heads_per_layer": [6]})");
        }).find("has 1 entries, expected more than 1") != std::string::npos);
}

TEST_CASE("a word of the config may decide a size") {
  const std::string gate = "model.layers.0.self_attn.g_proj";
  CHECK(spec_of("laguna", R"({"gating": "per-head"})").find_linear(gate)->out == 6);
  CHECK(spec_of("laguna", R"({"gating": "per-element"})").find_linear(gate)->out == 72);
}

TEST_CASE("one type has two classes, which the config's architectures tell apart") {
  const ModelSpec bare = spec_of("dots3_note_text");
  CHECK(bare.find_linear("layers.0.self_attn.o_proj") != nullptr);
  CHECK(bare.find_linear("lm_head") == nullptr);
  const ModelSpec whole =
      spec_of("dots3_note_text", R"({"architectures": ["Dots3NoteTextForCausalLM"]})");
  CHECK(whole.find_linear("model.layers.0.self_attn.o_proj") != nullptr);
  CHECK(whole.find_linear("lm_head") != nullptr);
}

TEST_CASE("a number of experts that are never run is bounded") {
  CHECK(
      spec_of("longcat_flash", R"({"zero_expert_num": 0})").batched_experts(Projection::gate_up) ==
      7);
  CHECK(error_text([] {
          spec_of("longcat_flash", R"({"zero_expert_num": 5000})");
        }).find("5000 experts are never run, expected 0 to 4096") != std::string::npos);
}
