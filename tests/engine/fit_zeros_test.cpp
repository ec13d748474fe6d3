// Zero factors for what a server wants whole, and one lora_A where it has one for two.

#include <doctest/doctest.h>

#include <algorithm>

#include "lib/base/error.h"
#include "tests/engine/fitted.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const std::string kConfig = R"({"r": 2, "lora_alpha": 4})";
const std::string kAttention = "model.layers.1.self_attn.";

// Expert `e` of layer 1 of the catalogue's qwen3_moe: H 64, I 24.
void add_expert(MadeAdapter& made, int e, const std::string& name) {
  const std::string module = "model.layers.1.mlp.experts." + std::to_string(e) + "." + name;
  if (name == "down_proj")
    made.pair(module, {2, 24}, {64, 2});
  else
    made.pair(module, {2, 64}, {24, 2});
}

MadeAdapter experts(const std::vector<std::string>& names, int count = 8) {
  MadeAdapter made(kConfig);
  for (int e = 0; e < count; ++e)
    for (const std::string& name : names) add_expert(made, e, name);
  return made;
}

bool is_zero_pair(const Adapter& adapter, const std::string& module, int64_t in, int64_t out) {
  const auto found = adapter.dense.find(module);
  return found != adapter.dense.end() && found->second.a.shape() == Shape{2, in} &&
         found->second.b.shape() == Shape{out, 2} && all_zero(found->second.a) &&
         all_zero(found->second.b);
}

}  // namespace

TEST_CASE("SGLang gets zero factors for the siblings it joins, and for no others") {
  struct Case {
    std::vector<std::string> given, added;
  };
  for (const Case& c : std::vector<Case>{{{"q_proj"}, {"v_proj"}},
                                         {{"k_proj"}, {"q_proj", "v_proj"}},
                                         {{"v_proj"}, {"q_proj"}},
                                         {{"q_proj", "k_proj"}, {"v_proj"}},
                                         {{"k_proj", "v_proj"}, {"q_proj"}},
                                         {{"q_proj", "v_proj"}, {}},
                                         {{"o_proj"}, {}}}) {
    MadeAdapter made(kConfig);
    for (const std::string& name : c.given) add_attention(made, 1, name);
    CAPTURE(c.given.front());
    const FittedAdapter out = fitted(made, "qwen3_moe", fit_for("sglang"));
    CHECK(out.adapter.dense.size() == c.given.size() + c.added.size());
    for (const std::string& name : c.added)
      CHECK(is_zero_pair(out.adapter, kAttention + name, 64, name == "q_proj" ? 64 : 32));
    CHECK(note_of(out.changes, "whole-groups").empty() == c.added.empty());
    CHECK(fitted(made, "qwen3_moe", fit_for("vllm")).changes.made.empty());
  }
}

TEST_CASE("SGLang gets a zero gate for a lone up of a dense MLP and of a shared expert") {
  MadeAdapter made(kConfig);
  made.pair("model.layers.0.mlp.up_proj", {2, 64}, {96, 2});
  made.pair("model.layers.1.mlp.shared_experts.up_proj", {2, 64}, {48, 2});
  const FittedAdapter out = fitted(made, "deepseek_v3", fit_for("sglang"));
  CHECK(out.adapter.dense.size() == 4);
  CHECK(is_zero_pair(out.adapter, "model.layers.0.mlp.gate_proj", 64, 96));
  CHECK(is_zero_pair(out.adapter, "model.layers.1.mlp.shared_experts.gate_proj", 64, 48));
}

TEST_CASE("SGLang gets both halves of MLA's down-projection, each of its own size") {
  for (const bool q : {true, false}) {
    CAPTURE(q);
    MadeAdapter made(kConfig);
    if (q)
      made.pair(kAttention + "q_a_proj", {2, 64}, {24, 2});
    else
      made.pair(kAttention + "kv_a_proj_with_mqa", {2, 64}, {24, 2});
    const FittedAdapter out = fitted(made, "deepseek_v3", fit_for("sglang"));
    CHECK(out.adapter.dense.size() == 2);
    CHECK(is_zero_pair(out.adapter, kAttention + (q ? "kv_a_proj_with_mqa" : "q_a_proj"), 64, 24));
  }
}

TEST_CASE("experts of which one side is adapted get the other as zeros") {
  for (const char* engine : {"sglang", "vllm"})
    for (const auto& given : std::vector<std::vector<std::string>>{
             {"down_proj"}, {"gate_proj"}, {"up_proj"}, {"gate_proj", "up_proj"}}) {
      CAPTURE(engine);
      CAPTURE(given.front());
      const auto c = converted(experts(given), "qwen3_moe", fit_for(engine));
      CHECK(c.adapter.experts.size() == 3);
      for (const auto& [key, pair] : c.adapter.experts) {
        const std::string name(projection_name(key.projection));
        const bool was = std::find(given.begin(), given.end(), name) != given.end();
        for (int64_t e = 0; e < 8; ++e) CHECK(all_zero(pair.b.at(e)) == !was);
      }
      CHECK(note_of(*c.changes, "whole-experts").find("wants every projection") !=
            std::string::npos);
    }
}

TEST_CASE("experts without factors beside others with get zeros") {
  for (const char* engine : {"sglang", "vllm"}) {
    CAPTURE(engine);
    const auto c =
        converted(experts({"gate_proj", "up_proj", "down_proj"}, 5), "qwen3_moe", fit_for(engine));
    for (const auto& entry : c.adapter.experts)
      for (int64_t e = 0; e < 8; ++e) {
        REQUIRE(entry.second.a.has(e));
        CHECK(all_zero(entry.second.a.at(e)) == (e >= 5));
      }
    CHECK(note_of(*c.changes, "whole-experts").find("9 experts without factors") !=
          std::string::npos);
  }
  CHECK(converted(experts({"gate_proj", "up_proj", "down_proj"}, 5), "qwen3_moe", fit_for("peft"))
            .changes->made.empty());
}

TEST_CASE("experts without a gate get none") {
  MadeAdapter made(kConfig);
  for (int e = 0; e < 4; ++e)
    made.pair("backbone.layers.1.mixer.experts." + std::to_string(e) + ".down_proj", {2, 24},
              {64, 2});
  for (const char* engine : {"sglang", "vllm"}) {
    CAPTURE(engine);
    const FittedAdapter out = fitted(made, "nemotron_h", fit_for(engine));
    CHECK(out.adapter.experts.size() == 2);
    CHECK(out.adapter.experts.count({1, Projection::up}) == 1);
  }
}

TEST_CASE(
    "gate and up with a lora_A of their own get one of twice the rank where SGLang mixes them") {
  const std::vector<std::string> all{"gate_proj", "up_proj", "down_proj"};
  const auto plain = converted(experts(all), "qwen3_moe", fit_for("sglang"));
  CHECK(plain.changes->made.empty());
  CHECK(plain.to->id == "stacked");

  const FitOptions virtual_experts = fit_for("sglang@0.5.22", {"virtual-experts=on"});
  const auto c = converted(experts(all), "qwen3_moe", virtual_experts);
  CHECK(c.to->id == "stacked-fused");
  CHECK(c.config.find("r")->as_int() == 4);
  CHECK(c.config.find("lora_alpha")->as_int() == 8);
  const std::string stem = "base_model.model.model.layers.1.mlp.experts.";
  const Tensor &a = c.tensors.at(stem + "gate_up_proj.lora_A.weight"),
               &b = c.tensors.at(stem + "gate_up_proj.lora_B.weight");
  CHECK(a.shape() == Shape{8, 4, 64});
  REQUIRE(b.shape() == Shape{8, 48, 4});
  CHECK(all_zero(b.slice(1, 0, 24).slice(2, 2, 2)));  // gate rows, up's half of the rank
  CHECK(all_zero(b.slice(1, 24, 24).slice(2, 0, 2)));
  CHECK(c.tensors.at(stem + "down_proj.lora_A.weight").shape() == Shape{8, 4, 24});
  CHECK(note_of(*c.changes, "one-a")
            .find("under virtual experts: in 1 layers both get one of rank "
                  "4 instead of 2") != std::string::npos);
}

TEST_CASE("one lora_A for gate and up stays as it is") {
  MadeAdapter made(kConfig);
  for (int e = 0; e < 8; ++e) {
    add_expert(made, e, "gate_proj");
    add_expert(made, e, "up_proj");
    add_expert(made, e, "down_proj");
    const std::string stem = "model.layers.1.mlp.experts." + std::to_string(e) + ".";
    made.copy(a_name(stem + "up_proj"), a_name(stem + "gate_proj"));
  }
  const auto c = converted(made, "qwen3_moe", fit_for("sglang@0.5.22", {"virtual-experts=on"}));
  CHECK(c.changes->made.empty());
  CHECK(c.config.find("r")->as_int() == 2);
}

TEST_CASE("a layout that keeps gate and up apart holds the joined lora_A twice") {
  const auto c = converted(experts({"gate_proj", "up_proj", "down_proj"}), "qwen3_moe",
                           fit_for("sglang@0.5.22", {"virtual-experts=on"}, {}, "stacked"), false);
  const std::string stem = "base_model.model.model.layers.1.mlp.experts.";
  CHECK(c.tensors.at(stem + "gate_proj.lora_A.weight").shape() == Shape{8, 4, 64});
  CHECK(c.tensors.at(stem + "gate_proj.lora_A.weight").read() ==
        c.tensors.at(stem + "up_proj.lora_A.weight").read());
}
