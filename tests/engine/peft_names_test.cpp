// Names of numbered experts that PEFT joins may end in anything behind lora_A; those of modules may
// not. Run with PEFT 0.21.2 beside transformers 5.24 on 2026-11-29: the same logits, or lost.

#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "lib/engine/peft/plan.h"
#include "tests/engine/peft_oracle.h"

using namespace moelora;
using namespace moelora::test;

namespace {

ServedAdapter with_tails(ServedAdapter adapter, std::string_view tail) {
  constexpr std::string_view kWeight = ".weight";
  for (TensorHeader& tensor : adapter.files.front().tensors)
    tensor.name.replace(tensor.name.size() - kWeight.size(), kWeight.size(), tail);
  return adapter;
}

size_t used(const PeftFamily& family, const ServedAdapter& adapter) {
  const ServerPlan plan = peft::plan(
      {{&adapter, 1}, family.spec, family.config(), {}, *EngineVersion::parse("0.21.2")});
  const auto& fates = plan.adapters.front().fates;
  return static_cast<size_t>(std::count_if(
      fates.begin(), fates.end(), [](const TensorFate& fate) { return fate.fate == Fate::used; }));
}

}  // namespace

TEST_CASE("what follows lora_A in an expert's name is nothing to PEFT where it joins the experts") {
  const std::set<std::string> converted = {"mixtral", "qwen3_moe", "deepseek_v3"};
  size_t checked = 0;
  each_peft_family([&](const PeftFamily& family) {
    if (converted.count(family.name) == 0) return;
    ++checked;
    CAPTURE(family.name);
    const ServedAdapter experts = family.adapter("numbered"), attention = family.adapter("attn");
    for (const char* tail :
         {".weight", "", ".other", ".other.weight", ".default.weight", "_other.weight"}) {
      CAPTURE(tail);
      CHECK(used(family, with_tails(experts, tail)) == experts.files.front().tensors.size());
    }
    CHECK(used(family, with_tails(attention, "")) == 0);
  });
  CHECK(checked == converted.size());
}

TEST_CASE(
    "whole norms, and rows that trainable_token_indices trains, are loaded though no list has "
    "them") {
  each_peft_family([&](const PeftFamily& family) {
    if (family.name != "qwen3_moe") return;
    ServedAdapter adapter = family.adapter("attn");
    std::vector<TensorHeader>& tensors = adapter.files.front().tensors;
    const size_t before = tensors.size();
    const auto add = [&](const char* name, Shape shape) {
      tensors.push_back(tensors.front());
      tensors.back().name = std::string("base_model.model.") + name;
      tensors.back().shape = std::move(shape);
    };
    add("model.norm.weight", {64});
    add("model.layers.0.input_layernorm.weight", {64});
    add("model.embed_tokens.token_adapter.trainable_tokens_delta", {1, 64});
    add("model.nothing.weight", {64});
    CHECK(used(family, adapter) == before + 2);
    adapter.config.set("trainable_token_indices", Json::array({Json(int64_t{3})}));
    CHECK(used(family, adapter) == before + 3);
    adapter.config.set("modules_to_save", Json::strings({"nothing"}));
    CHECK(used(family, adapter) == before + 4);
  });
}
