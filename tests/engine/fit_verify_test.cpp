// The second opinion on a fit: deltas row by row, which knows nothing of how repairs are made.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <bit>

#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/engine/fit/deltas.h"
#include "tests/engine/fitted.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const std::string kQ = "model.layers.1.self_attn.q_proj";

// gpt-oss, layer 1: attention with scales and ranks of its own, experts with two lora_A.
MadeAdapter mixed() {
  MadeAdapter made(R"({"r": 2, "lora_alpha": 4, "alpha_pattern": {"q_proj": 5, "down_proj": 1},
                       "rank_pattern": {"v_proj": 3}})");
  for (const char* name : {"q_proj", "k_proj"}) add_attention(made, 1, name);
  add_attention(made, 1, "v_proj", 3);
  for (int e = 0; e < 3; ++e) {
    const std::string stem = "model.layers.1.mlp.experts." + std::to_string(e) + ".";
    made.pair(stem + "gate_proj", {2, 64}, {48, 2});
    made.pair(stem + "up_proj", {2, 64}, {48, 2});
    made.pair(stem + "down_proj", {2, 48}, {64, 2});
  }
  return made;
}

FittedAdapter fit_in(DType dtype, const std::string& engine = "sglang") {
  LoadedAdapter read = mixed().read("gpt_oss");
  const auto cast = [&](Tensor& t) {
    if (t.rank() != 0) t = cast_tensors({{"t", t}}, dtype).at("t");
  };
  for (auto& entry : read.adapter.dense) cast(entry.second.a), cast(entry.second.b);
  for (auto& entry : read.adapter.experts)
    for (Factor* factor : {&entry.second.a, &entry.second.b})
      for (Tensor& part : factor->parts) cast(part);
  return fit_adapter(read, fit_for(engine));
}

}  // namespace

TEST_CASE("a sound fit is accepted in every float type, rounded lora_B included") {
  for (DType dtype : {DType::F64, DType::F32, DType::BF16})
    for (const char* engine : {"sglang", "vllm"}) {
      CAPTURE(dtype_name(dtype));
      CAPTURE(engine);
      const FittedAdapter out = fit_in(dtype, engine);
      CHECK(verify_fit(out.meant, out.adapter, 2) == 3 + 3 * 4);
    }
}

TEST_CASE("whatever is wrong with a fit is found and named") {
  FittedAdapter out = fit_in(DType::F32);
  const auto refused = [&](const std::string& what) {
    CHECK_THROWS_WITH_AS(verify_fit(out.meant, out.adapter, 2), doctest::Contains(what.c_str()),
                         Error);
  };
  ExpertPair& fused = out.adapter.experts.at({1, Projection::gate_up});
  SUBCASE("a lost module") {
    out.adapter.dense.erase(kQ);
    refused(kQ + ": verification failed: it has no delta any more");
  }
  SUBCASE("a scale") {
    out.adapter.dense.at(kQ).scaling.alpha *= 1.0001;
    refused(kQ + ": verification failed: row 0");
  }
  SUBCASE("two experts exchanged") {
    std::swap(fused.b.parts[0], fused.b.parts[1]);
    refused("layer 1 expert 0 gate_proj: verification failed");
  }
  SUBCASE("halves exchanged") {
    Tensor& b = fused.b.parts[2];
    b = Tensor::concat(0, std::vector{b.slice(0, 48, 48), b.slice(0, 0, 48)});
    refused("layer 1 expert 2 ");
  }
  SUBCASE("lora_A of gate for up") {
    Tensor& a = fused.a.parts[1];
    a = Tensor::concat(0, std::vector{a.slice(0, 0, 2), a.slice(0, 0, 2)});
    refused("layer 1 expert 1 up_proj");
  }
  SUBCASE("padding that is not zero") {
    DensePair& q = out.adapter.dense.at(kQ);
    q.a = q.a.slice(0, 0, 1).broadcast(0, 4);
    refused(kQ);
  }
  SUBCASE("an expert that was not there") {
    fused.b.parts[3] = fused.b.parts[0];
    fused.a.parts[3] = fused.a.parts[0];
    refused("layer 1 expert 3 gate_proj: verification failed: row 0 of its delta");
  }
}

TEST_CASE("rounding is allowed to the type and no further") {
  FittedAdapter out = fit_in(DType::BF16);
  DensePair& q = out.adapter.dense.at(kQ);  // scaled by 1.25 in BF16
  CHECK(verify_fit(out.meant, out.adapter, 2) > 0);
  q.scaling.alpha *= 1.01;
  CHECK_THROWS_AS(verify_fit(out.meant, out.adapter, 2), Error);
}

TEST_CASE("one element of a rounded lora_B that is off by two roundings is found") {
  FittedAdapter out = fit_in(DType::BF16);
  Tensor& b = out.adapter.dense.at(kQ).b;  // scaled by 1.25 in BF16
  const Tensor sound = b;
  const std::vector<double> values = read_double(sound);
  const auto rank = static_cast<size_t>(sound.dim(1));
  for (size_t row = 0; row * rank < values.size(); row += 7) {
    const size_t at = row * rank + 1;  // of the longer row of lora_A: no other hides it
    CAPTURE(at);
    std::vector<float> other(values.begin(), values.end());
    other[at] = std::bit_cast<float>(std::bit_cast<uint32_t>(other[at]) + (2U << 16U));
    b = cast_tensors({{"b", Tensor::of_f32(sound.shape(), other)}}, DType::BF16).at("b");
    const std::string where = fmt::format("verification failed: row {} of its delta", row);
    CHECK_THROWS_WITH_AS(verify_fit(out.meant, out.adapter, 1), doctest::Contains(where.c_str()),
                         Error);
  }
  b = sound;
  CHECK(verify_fit(out.meant, out.adapter, 1) > 0);
}

TEST_CASE("a delta of another size is found before its rows are") {
  FittedAdapter out = fit_in(DType::F32);
  Tensor& b = out.adapter.dense.at(kQ).b;
  b = b.slice(0, 0, b.dim(0) - 1);
  CHECK_THROWS_WITH_AS(verify_fit(out.meant, out.adapter, 1),
                       doctest::Contains("verification failed: its delta is 63 by 64, expected 64"),
                       Error);
}
