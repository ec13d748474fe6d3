// What must stay the same, or must not, whatever the numbers are.

#include <doctest/doctest.h>

#include <cmath>

#include "tests/forward/cases.h"

namespace moelora::test {
namespace {

const std::string kData = std::string(MOELORA_TEST_DATA) + "/";

std::vector<double> part(const std::vector<double>& all, size_t first, size_t count) {
  return {all.begin() + static_cast<long>(first), all.begin() + static_cast<long>(first + count)};
}

}  // namespace

TEST_CASE("one adapter in the layouts of several trainers scores alike") {
  const ForwardCase golden = forward_case("gpt_oss", "peft_params");
  const BaseModel base = golden.open();
  const std::vector<double> scores = scores_of(golden);
  for (const char* other : {"peft_params_alphabetical", "peft_params_grouped_b",
                            "peft_params_swapped_roles", "peft_params_grouped_b_unmarked"}) {
    CAPTURE(other);
    LoadOptions options;
    options.base = golden.base;
    if (std::string(other).ends_with("unmarked")) options.read.b_order = BOrder::expert_major;
    if (std::string(other).ends_with("swapped_roles")) options.read.roles = Roles::swapped;
    const LoadedAdapter adapter = load_adapter(kData + "gpt_oss/" + other, options);
    CHECK(apart(scores_of(base, &adapter.adapter, golden.tokens()), scores) < 1e-12);
  }
}

TEST_CASE("a stacked lora_B in the wrong order is not what was trained") {
  const ForwardCase golden = forward_case("gpt_oss", "peft_params");
  const auto scrambled = golden.load({BOrder::expert_major, std::nullopt});
  CHECK(apart(scores_of(golden.open(), &scrambled->adapter, golden.tokens()), golden.answer()) >
        1e-2);
}

TEST_CASE("an adapter of zeros is the base") {
  const ForwardCase golden = forward_case("qwen3_moe", "peft_params");
  auto loaded = golden.load();
  for (auto& [module, pair] : loaded->adapter.dense)
    pair.b = Tensor::zeros(pair.b.dtype(), pair.b.shape());
  for (auto& [key, pair] : loaded->adapter.experts)
    for (Tensor& b : pair.b.parts) b = Tensor::zeros(b.dtype(), b.shape());
  const BaseModel base = golden.open();
  CHECK(scores_of(base, &loaded->adapter, golden.tokens()) ==
        scores_of(base, nullptr, golden.tokens()));
}

TEST_CASE("no sequence sees another, and how they are put together changes nothing") {
  for (const char* family : {"gpt_oss", "qwen3_next", "granitemoehybrid", "lfm2_moe",
                             "deepseek_v32", "gemma4_moe_text"}) {
    CAPTURE(family);
    const ForwardCase golden = forward_case(family, "base");
    const BaseModel base = golden.open();
    const Tokens tokens = golden.tokens();
    std::vector<double> alone;
    for (const std::vector<int64_t>& sequence : tokens) {
      const std::vector<double> own = scores_of(base, nullptr, {sequence});
      alone.insert(alone.end(), own.begin(), own.end());
    }
    CHECK(apart(alone, scores_of(base, nullptr, tokens)) < 1e-11);
  }
}

TEST_CASE("a later token never changes an earlier score") {
  for (const char* family : {"gpt_oss", "qwen3_next", "granitemoehybrid", "lfm2_moe",
                             "deepseek_v32", "gemma4_moe_text"}) {
    CAPTURE(family);
    const ForwardCase golden = forward_case(family, "base");
    const BaseModel base = golden.open();
    std::vector<int64_t> tokens = golden.tokens().front();
    const size_t last = tokens.size() - 1;
    const std::vector<double> before = scores_of(base, nullptr, {tokens});
    tokens[last] = (tokens[last] + 1) % base.spec.vocab;
    const std::vector<double> after = scores_of(base, nullptr, {tokens});
    CHECK(apart(part(before, 0, last - 1), part(after, 0, last - 1)) < 1e-11);
    CHECK(before.back() != after.back());
  }
}

TEST_CASE("rounded to BF16 as a server stores it, scores are near and not the same") {
  for (const ForwardCase& golden : forward_cases()) {
    if (golden.name != "attention_only" && golden.name != "base") continue;
    const std::string name = golden.family + " " + golden.name;
    CAPTURE(name);
    const std::vector<double> exact = scores_of(golden);
    const std::vector<double> rounded = scores_of(golden, Precision::bf16);
    double sum = 0;
    for (size_t i = 0; i < exact.size(); ++i) sum += std::abs(exact[i] - rounded[i]);
    const double mean = sum / static_cast<double>(exact.size());
    CHECK(mean > 1e-3);  // 2^-9 of numbers of size 1 at each step
    CHECK(mean < 0.3);   // a few flips of the router among them
  }
}

TEST_CASE("threads do not change a bit") {
  const ForwardCase golden = forward_case("gpt_oss", "peft_params");
  const auto adapter = golden.load();
  const BaseModel base = golden.open();
  ScoreOptions options;
  options.threads = 1;
  const auto one = score_tokens(base, &adapter->adapter, golden.tokens(), options);
  options.threads = 3;
  const auto three = score_tokens(base, &adapter->adapter, golden.tokens(), options);
  for (size_t s = 0; s < one.size(); ++s) CHECK(one[s].logprobs == three[s].logprobs);
}

TEST_CASE("little memory takes more passes and changes nothing") {
  for (const char* family : {"gpt_oss", "qwen3_next", "glm_moe_dsa"}) {
    CAPTURE(family);
    const ForwardCase golden = forward_case(family, "attention_only");
    const auto adapter = golden.load();
    const BaseModel base = golden.open();
    ScoreOptions options;
    options.precision = Precision::f64;
    const auto all = score_tokens(base, &adapter->adapter, golden.tokens(), options);
    options.memory = 1;  // a sequence and a token at a time
    const auto parts = score_tokens(base, &adapter->adapter, golden.tokens(), options);
    for (size_t s = 0; s < all.size(); ++s)
      CHECK(apart(all[s].logprobs, parts[s].logprobs) < 1e-11);
  }
}

TEST_CASE("temperature and the most probable tokens") {
  const ForwardCase golden = forward_case("qwen3_moe", "base");
  const BaseModel base = golden.open();
  ScoreOptions options;
  options.precision = Precision::f64;
  options.top = 160;  // the whole vocabulary
  options.temperature = 0.5;
  const auto warm = score_tokens(base, nullptr, golden.tokens(), options);
  options.temperature = 1;
  const auto plain = score_tokens(base, nullptr, golden.tokens(), options);
  double sum = 0, sharper = 0;
  for (const auto& top : plain[0].top[3]) sum += std::exp(top.logprob);
  CHECK(sum == doctest::Approx(1));
  REQUIRE(plain[0].top[3].size() == static_cast<size_t>(base.spec.vocab));
  for (const auto& top : plain[0].top[3]) sharper += std::exp(2 * top.logprob);
  const auto& best = plain[0].top[3].front();
  CHECK(warm[0].top[3].front().token == best.token);
  CHECK(warm[0].top[3].front().logprob == doctest::Approx(2 * best.logprob - std::log(sharper)));
}

}  // namespace moelora::test
