// What a config tells of the column order of its stacked lora_B: markers, Unsloth's stamp,
// Megatron-Bridge's fingerprint. qwen3_moe of the catalogue: E 8, H 64, I 24.

#include "lib/adapter/b_order.h"

#include <doctest/doctest.h>
#include <fmt/core.h>

#include "tests/adapter/made_adapter.h"
#include "tests/io/error_text.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const std::string kExperts = "model.layers.1.mlp.experts";

MadeAdapter stacked(const std::string& more, bool swapped = false) {
  MadeAdapter made(R"({"r": 2, "lora_alpha": 4)" + more + "}");
  if (swapped)
    return made.pair(kExperts + ".base_layer", {16, 48}, {64, 16})
        .pair(kExperts, {16, 64}, {24, 16});
  return made.pair(kExperts + ".base_layer", {16, 64}, {48, 16}).pair(kExperts, {16, 24}, {64, 16});
}

// Both sides of expert 3: with swapped roles the order of the file's lora_B is in A.
std::vector<float> pair_of(const LoadedAdapter& loaded, Projection projection) {
  const ExpertPair& pair = loaded.adapter.experts.at({1, projection});
  std::vector<float> out = floats(pair.a.at(3));
  for (const float value : floats(pair.b.at(3))) out.push_back(value);
  return out;
}

// Which order each of gate_up and down was read in: "rank expert", or the error.
std::string orders(const MadeAdapter& made, const std::string& family = "qwen3_moe") {
  std::string out;
  const std::string error = error_text([&] {
    const LoadedAdapter read = made.read(family);
    const LoadedAdapter rank = made.read(family, {BOrder::rank_major, {}});
    for (const Projection p : {Projection::gate_up, Projection::down})
      out += pair_of(read, p) == pair_of(rank, p) ? "rank " : "expert ";
  });
  return error.empty() ? out : error;
}

std::string stamp(const std::string& library) {
  return R"(, "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
      "auto_mapping": {"unsloth_fixed": true, "parent_library": ")" +
         library + "\"}";
}

const std::string kBridge = R"(, "auto_mapping": null, "target_parameters": [
    "model.layers.1.mlp.experts.down_proj", "model.layers.1.mlp.experts.gate_up_proj"])";

}  // namespace

TEST_CASE("Unsloth's stamp without a marker is read as Unsloth reads it, by family") {
  const std::string qwen = "transformers.models.qwen3_moe.modeling_qwen3_moe";
  CHECK(orders(stacked(stamp(qwen))) == "expert expert ");
  CHECK(orders(stacked(stamp("unsloth_compiled_cache.unsloth_compiled_module_qwen3_moe"))) ==
        "expert expert ");
  CHECK(orders(stacked(stamp("transformers.models.olmoe.modeling_olmoe"))) == "rank rank ");
  CHECK(orders(stacked(stamp(""))) == "expert expert ");  // the base's family
  CHECK(stacked(stamp(qwen)).read("qwen3_moe").adapter.stacked->b_order_from == "stamped");
  SUBCASE("a marker beside it, at the top or in auto_mapping, counts") {
    CHECK(orders(stacked(stamp(qwen) + R"(, "lora_B_layout": "rank_major")")) == "rank rank ");
    std::string inside = stamp(qwen);
    inside.insert(inside.find("\"parent"), "\"lora_B_layout\": \"rank_major\", ");
    CHECK(orders(stacked(inside)) == "rank rank ");
  }
  SUBCASE("without a family it is asked for") {
    MadeAdapter made = stacked(stamp(""));
    CHECK(error_text([&] { made.read(); }).find("no base model is known") != std::string::npos);
  }
  SUBCASE("without target_parameters the stamp says nothing") {
    CHECK(orders(stacked(R"(, "auto_mapping": {"unsloth_fixed": true})")) == "rank rank ");
  }
}

TEST_CASE("Unsloth's nested markers decide, each parameter for itself") {
  const auto nested = [](const std::string& inner) {
    return stacked(R"(, "unsloth_fused_expert_lora": )" + inner);
  };
  const std::string apart = R"("parameters": {
      "mlp.experts.gate_up_proj": {"lora_B_layout": "rank_major", "num_experts": 8},
      "mlp.experts.down_proj": {"lora_B_layout": "grouped_by_expert", "num_experts": 8}})";
  CHECK(orders(nested(R"({"lora_B_layout": "grouped_by_expert"})")) == "expert expert ");
  CHECK(orders(nested(R"({"lora_B_layout": "mixed", )" + apart + "}")) == "rank expert ");
  CHECK(orders(nested("{" + apart + "}")) == "rank expert ");
  CHECK(orders(stacked(R"(, "auto_mapping": {"unsloth_fused_expert_lora": {)" + apart + "}}")) ==
        "rank expert ");
  CHECK(orders(nested(R"({"lora_B_layout": "mixed"})")).find("differ, by parameter") !=
        std::string::npos);
  // One parameter whose layers differ: nothing says how.
  CHECK(orders(nested(R"({"parameters": {"gate_up_proj": {"lora_B_layout": "mixed"},
                                         "down_proj": {"lora_B_layout": "rank_major"}}})"))
            .find("differ, by parameter") != std::string::npos);
  // Unsloth itself reads a parameter's entry before the flat key.
  const std::string grouped = R"("parameters": {
      "gate_up_proj": {"lora_B_layout": "grouped_by_expert", "num_experts": 8},
      "down_proj": {"lora_B_layout": "grouped_by_expert", "num_experts": 8}})";
  CHECK(orders(stacked(R"(, "lora_B_layout": "rank_major", "unsloth_fused_expert_lora": {)" +
                       grouped + "}")) == "expert expert ");
  CHECK(orders(nested(R"({"lora_B_layout": "sideways"})")).find("\"sideways\"") !=
        std::string::npos);
}

TEST_CASE("what Megatron-Bridge packs is expert-major, known by its config and roles") {
  CHECK(orders(stacked(kBridge, true)) == "expert expert ");
  CHECK(orders(stacked(kBridge)) == "rank rank ");  // natural roles
  CHECK(orders(stacked(kBridge + R"(, "peft_version": "0.17.0")", true)) == "rank rank ");
  CHECK(orders(stacked(R"(, "target_parameters": ["model.layers.1.mlp.experts.gate_up_proj",
      "model.layers.1.mlp.experts.down_proj"])",
                       true)) == "rank rank ");
}

TEST_CASE("Unsloth's stamp means expert-major in the thirteen families that it read so") {
  for (const char* family : {"deepseek_v3", "ernie4_5_moe", "ernie4_5_vl_moe", "gemma4", "glm4_moe",
                             "glm4_moe_lite", "gpt_oss", "lfm2_moe", "mixtral", "qwen3_5_moe",
                             "qwen3_moe", "qwen3_next", "qwen3_vl_moe"}) {
    CAPTURE(family);
    const std::string library = fmt::format("transformers.models.{0}.modeling_{0}", family);
    const LoadedAdapter read = stacked(stamp(library)).read();
    CHECK(read.adapter.stacked->b_order == BOrder::expert_major);
    CHECK(read.adapter.stacked->b_order_from == "stamped");
  }
  SUBCASE("a wrapper's experts are those of the text model inside") {
    const std::string wrapper = "transformers.models.internvl.modeling_internvl";
    CHECK(stacked(stamp(wrapper)).read("qwen3_moe").adapter.stacked->b_order ==
          BOrder::expert_major);
    CHECK(error_text([&] { stacked(stamp(wrapper)).read(); }).find("no base model is known") !=
          std::string::npos);
  }
}

TEST_CASE("markers that contradict each other decide nothing") {
  const std::string both = R"(, "lora_B_layout": "rank_major", "auto_mapping":
      {"lora_B_layout": "grouped_by_expert"})";
  CHECK(orders(stacked(both)).find("differ, by parameter or from each other") != std::string::npos);
  CHECK(orders(stacked(R"(, "lora_B_layout": "rank_major", "moelora": {"b_order":
      "expert-major"})"))
            .find("from each other") != std::string::npos);
}

TEST_CASE("what is written again holds no marker of the input's order") {
  const MadeAdapter made = stacked(R"(, "unsloth_fused_expert_lora": {"lora_B_layout":
      "grouped_by_expert"}, "auto_mapping": {"lora_B_layout": "grouped_by_expert", "kept": 1})");
  const Json config = made.convert("peft-params", "qwen3_moe").config;
  CHECK(config.find("unsloth_fused_expert_lora") == nullptr);
  CHECK(config.find("lora_B_layout") == nullptr);
  const Json& mapping = *config.find("auto_mapping");
  CHECK(mapping.find("kept") != nullptr);
  CHECK(mapping.find("lora_B_layout")->as_string() == "rank_major");
  CHECK(mapping.find("unsloth_fused_expert_lora") == nullptr);
}
