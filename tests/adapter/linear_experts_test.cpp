// Adapters of the two encoder-decoder families, whose experts are Linears of their own in every
// form: pairs like those of attention, which every layout writes as they are.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>

#include "lib/adapter/init.h"
#include "lib/adapter/inspect.h"
#include "lib/adapter/layout.h"
#include "lib/adapter/tensor_name.h"
#include "lib/model/model_builder.h"
#include "tests/adapter/made_adapter.h"
#include "tests/io/error_text.h"
#include "tests/model/catalogue.h"

using namespace moelora;
using namespace moelora::test;

namespace {

// fc1 and fc2 of two experts and of a dense layer, and attention, as PEFT names them.
MadeAdapter nllb() {
  MadeAdapter out(R"({"r": 2, "lora_alpha": 4, "target_modules":
                      ["fc1", "fc2", "q_proj", "classifier"], "task_type": "SEQ_2_SEQ_LM"})");
  const std::string encoder = "model.encoder.layers.", decoder = "model.decoder.layers.";
  return out.pair(encoder + "1.ffn.experts.expert_0.fc1", {2, 60}, {84, 2})
      .pair(encoder + "1.ffn.experts.expert_0.fc2", {2, 84}, {60, 2})
      .pair(encoder + "1.ffn.router.classifier", {2, 60}, {7, 2})
      .pair(encoder + "0.ffn.fc1", {2, 60}, {84, 2})
      .pair(encoder + "0.self_attn.q_proj", {2, 60}, {60, 2})
      .pair(decoder + "1.ffn.experts.expert_0.fc1", {2, 60}, {84, 2})
      .pair(decoder + "1.ffn.experts.expert_6.fc1", {2, 60}, {84, 2})
      .pair(decoder + "1.cross_attention.q_proj", {2, 60}, {60, 2});
}

MadeAdapter switch_transformers() {
  MadeAdapter out(R"({"r": 2, "lora_alpha": 4, "target_modules": ["wi", "wo", "q", "o"]})");
  return out.pair("encoder.block.1.layer.1.mlp.experts.expert_0.wi", {2, 60}, {84, 2})
      .pair("decoder.block.1.layer.2.mlp.experts.expert_6.wo", {2, 84}, {60, 2})
      .pair("decoder.block.0.layer.2.mlp.wi", {2, 60}, {84, 2})
      .pair("decoder.block.1.layer.1.EncDecAttention.o", {2, 72}, {60, 2})
      .pair("encoder.block.0.layer.0.SelfAttention.q", {2, 60}, {72, 2});
}

void check_same(const MadeAdapter& made, const Conversion& c) {
  CHECK(c.tensors.size() == made.tensors().size());
  for (const auto& entry : made.tensors()) {
    const std::string& name = entry.first;
    CAPTURE(name);
    REQUIRE(c.tensors.count(name) == 1);
    CHECK(c.tensors.at(name).shape() == entry.second.shape());
    CHECK(c.tensors.at(name).read() == entry.second.read());
  }
}

}  // namespace

TEST_CASE("experts that are Linears are written by every layout as they were read") {
  for (const Layout* layout : all_layouts()) {
    const std::string id(layout->id);
    CAPTURE(id);
    check_same(nllb(), nllb().convert(id, "nllb_moe"));
    check_same(nllb(), nllb().convert(id));  // and so without a base
    check_same(switch_transformers(), switch_transformers().convert(id, "switch_transformers"));
  }
}

TEST_CASE("experts that are Linears are dense pairs of the module's own path and scale") {
  const LoadedAdapter loaded = nllb().read("nllb_moe");
  CHECK(loaded.layout == nullptr);
  CHECK(loaded.adapter.experts.empty());
  CHECK(loaded.adapter.expert_count == 0);
  const auto pair = loaded.adapter.dense.find("model.decoder.layers.1.ffn.experts.expert_6.fc1");
  REQUIRE(pair != loaded.adapter.dense.end());
  CHECK(pair->second.scaling.value() == 2);
  CHECK(pair->second.b.shape() == Shape{84, 2});
}

TEST_CASE(
    "a factor of an expert or a layer that the model has not is refused or noted like others") {
  MadeAdapter wrong = nllb();
  wrong.pair("model.encoder.layers.1.ffn.experts.expert_1.fc2", {2, 60}, {84, 2});
  CHECK(error_text([&] {
          wrong.convert("stacked", "nllb_moe");
        }).find("model.encoder.layers.1.ffn.experts.expert_1.fc2") != std::string::npos);
}

TEST_CASE("a path below experts is a Linear of its own where an expert_N stands there alone") {
  CHECK(!parse_expert_path("model.encoder.layers.1.ffn.experts.expert_3.fc1"));
  CHECK(parse_expert_path("model.layers.1.mlp.experts.3.w1"));
  CHECK(parse_expert_path("model.layers.1.mlp.experts.expert_3"));
  CHECK(parse_expert_path("model.layers.1.mlp.experts.expert_x.w1"));
  CHECK(parse_expert_path("model.layers.1.mlp.experts.expert_03.w1"));
  CHECK(parse_expert_path("model.layers.1.mlp.no_experts.expert_3.experts.3.w1"));
  CHECK(!find_linear_expert("ffn.experts.expert_3"));
  const auto place = find_linear_expert("experts.expert_12.fc1");
  REQUIRE(place);
  CHECK(place->begin == 15);
  CHECK(place->end == 17);
}

TEST_CASE("the table of modules tells an encoder from a decoder, and has one row for all experts") {
  std::string text;
  for (const ModuleRow& row : module_rows(nllb().read("nllb_moe").adapter))
    text += fmt::format("{} {} {}\n", row.module, row.layers, row.pairs);
  CHECK(text ==
        "decoder.cross_attention.q_proj 1 1\n"
        "decoder.ffn.experts.expert_{e}.fc1 1 2\n"
        "encoder.ffn.experts.expert_{e}.fc1 1 1\n"
        "encoder.ffn.experts.expert_{e}.fc2 1 1\n"
        "encoder.ffn.fc1 0 1\n"
        "encoder.ffn.router.classifier 1 1\n"
        "encoder.self_attn.q_proj 0 1\n");
}

TEST_CASE("a fresh adapter of these experts is what PEFT starts for an encoder and a decoder") {
  for (const char* family : {"nllb_moe", "switch_transformers"}) {
    CAPTURE(family);
    InitOptions options;
    options.base = later_entry(family).config;
    options.rank = 2;
    options.targets = {"experts", "mlp"};
    options.to = "peft-linear";
    const Conversion made = make_adapter(options);
    // 7 experts and a dense layer, in an encoder and a decoder, of two Linears each.
    CHECK(made.tensors.size() == 2 * (7 + 1) * 2 * 2);
    CHECK(made.config.find("task_type")->as_string() == "SEQ_2_SEQ_LM");
    options.to = "stacked";
    CHECK(make_adapter(options).tensors.size() == made.tensors.size());
    options.targets = {"shared"};
    CHECK(error_text([&] { make_adapter(options); }).find("this base model has no shared") !=
          std::string::npos);
  }
}

TEST_CASE("a note says why no layout differs, with experts that are Linears and without") {
  const auto notes = nllb().convert("stacked", "nllb_moe").notes;
  CHECK(std::count(notes.begin(), notes.end(),
                   "its experts are Linears of their own: every layout writes the same") == 1);
  MadeAdapter attention;
  attention.pair("model.encoder.layers.0.self_attn.q_proj", {2, 60}, {60, 2});
  const auto others = attention.convert("stacked", "nllb_moe").notes;
  CHECK(std::count(others.begin(), others.end(),
                   "no routed-expert factors: every layout writes the same") == 1);
}
