// What cannot be computed is refused in one line, before any weight is read where that can be told.

#include <doctest/doctest.h>

#include "tests/forward/cases.h"

namespace moelora::test {
namespace {

std::string refusal(const BaseModel& base, const Adapter* adapter, const Tokens& tokens) {
  try {
    score_tokens(base, adapter, tokens);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("tokens that the model cannot have") {
  const ForwardCase golden = forward_case("qwen3_moe", "base");
  const BaseModel base = golden.open();
  CHECK(contains(refusal(base, nullptr, {{1, 2}, {3, 9999}}), "sequence 1 position 1"));
  CHECK(contains(refusal(base, nullptr, {{1, -2}}), "token -2 is not in the model's vocabulary"));
  const std::vector<int64_t> longer(40961, 1);
  CHECK(contains(refusal(base, nullptr, {longer}), "more than the model's"));
}

TEST_CASE("a family that nobody has described") {
  BaseModel base = forward_case("qwen3_moe", "base").open();
  base.spec.forward = nullptr;
  CHECK(contains(refusal(base, nullptr, {{1, 2}}), "how models of the family qwen3_moe compute"));
}

TEST_CASE("a base without weights") {
  const BaseModel base = open_base("openai/gpt-oss-20b");
  CHECK(contains(refusal(base, nullptr, {{1, 2}}), "has no weights"));
}

TEST_CASE("an adapter of another base") {
  const ForwardCase other = forward_case("deepseek_v3", "attention_only");
  const auto adapter = other.load();
  const BaseModel base = forward_case("gpt_oss", "base").open();
  CHECK(refusal(base, &adapter->adapter, {{1, 2}}) != "");
}

TEST_CASE("LoRA on a module that the forward does not compute with is not passed over") {
  const ForwardCase golden = forward_case("qwen3_moe", "attention_only");
  auto loaded = golden.load();
  BaseModel base = golden.open();
  LinearSpec other = base.spec.linears[1];
  other.hub = other.memory = "model.layers.0.self_attn.other_proj";
  base.spec.linears.push_back(other);
  base.spec.index_linears();
  loaded->adapter.dense[other.memory] = loaded->adapter.dense.begin()->second;
  CHECK(contains(refusal(base, &loaded->adapter, {{1, 2}}), "other_proj"));
}

TEST_CASE("a tensor of which nobody knows what it does") {
  const ForwardCase golden = forward_case("qwen3_moe", "attention_only");
  auto loaded = golden.load();
  loaded->adapter.extras["model.layers.0.strange"] = {ExtraKind::other,
                                                      Tensor::zeros(DType::F32, {2})};
  CHECK(contains(refusal(golden.open(), &loaded->adapter, {{1, 2}}), "model.layers.0.strange"));
}

}  // namespace moelora::test
