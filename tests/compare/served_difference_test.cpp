#include "lib/compare/served_difference.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>

#include "lib/base/cast.h"
#include "lib/compare/meant_deltas.h"
#include "tests/engine/vllm_oracle.h"

using namespace moelora;

namespace {

const ModelSpec& spec() { return test::vllm_base("qwen3_moe").spec; }

const DeltaKey kGate{"gate_proj", 1, 3};

Tensor random(const Shape& shape, uint32_t seed, DType dtype = DType::F32) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(static_cast<size_t>(shape[0] * shape[1]));
  for (float& value : values) value = uniform(engine);
  const TensorMap out = cast_tensors({{"", Tensor::of_f32(shape, values)}}, dtype);
  return out.begin()->second;
}

Tensor as_bf16(const Tensor& tensor) {
  return cast_tensors({{"", tensor}}, DType::BF16).begin()->second;
}

// A delta 10 -> 12 of rank 3.
Delta delta(DType dtype, double scale) {
  return {random({3, 10}, 1, dtype), random({12, 3}, 2, dtype), scale};
}

ServedBlock block(Tensor a, Tensor b, double scale = 1) {
  ServedBlock out;
  out.module = kGate.module;
  out.layer = kGate.layer;
  out.expert = kGate.expert;
  out.a = std::move(a);
  out.b = std::move(b);
  out.scale = scale;
  return out;
}

ServedBlock at(ServedBlock block, int64_t out_first, int64_t in_first, int64_t out_step = 1) {
  block.out_first = out_first;
  block.in_first = in_first;
  block.out_step = out_step;
  return block;
}

ServedDelta measured(const Deltas& meant, const std::vector<ServedBlock>& blocks) {
  const auto all = served_differences(meant, spec(), blocks, 1);
  REQUIRE(all.size() == 1);
  return all.front();
}

ServedDelta measured(const Delta& meant, const std::vector<ServedBlock>& blocks) {
  return measured(Deltas{{kGate, meant}}, blocks);
}

using Dense = std::vector<double>;  // 16 x 16: room for what is beyond

void add(const Tensor& a, const Tensor& b, double scale, const ServedBlock& where, Dense& out) {
  const std::vector<double> av = read_double(a), bv = read_double(b);
  const int64_t r = a.dim(0);
  for (int64_t i = 0; i < b.dim(0); ++i)
    for (int64_t j = 0; j < a.dim(1); ++j)
      for (int64_t k = 0; k < r; ++k)
        out[static_cast<size_t>((where.out_first + i * where.out_step) * 16 + where.in_first +
                                j)] +=
            scale * bv[static_cast<size_t>(i * r + k)] * av[static_cast<size_t>(k * a.dim(1) + j)];
}

double norm(const Dense& matrix) {
  double sum = 0;
  for (double value : matrix) sum += value * value;
  return std::sqrt(sum);
}

}  // namespace

TEST_CASE("what is served whole is not off, however the ranks cut it") {
  const Delta d = delta(DType::BF16, 2);
  const auto exact = [&](const std::vector<ServedBlock>& blocks) {
    const ServedDelta found = measured(d, blocks);
    CHECK(found.apart == 0);
    CHECK((found.same || found.served == doctest::Approx(found.meant)));
    CHECK_FALSE(found.is_wrong());
  };
  exact({block(d.a, d.b, 2)});
  exact({at(block(d.a, d.b.slice(0, 0, 6), 2), 0, 0), at(block(d.a, d.b.slice(0, 6, 6), 2), 6, 0)});
  exact({at(block(d.a.slice(1, 0, 5), d.b, 2), 0, 0), at(block(d.a.slice(1, 5, 5), d.b, 2), 0, 5)});
  const Tensor pairs = d.b.reshape({6, 2, 3});
  exact({at(block(d.a, pairs.select(1, 0), 2), 0, 0, 2),
         at(block(d.a, pairs.select(1, 1), 2), 1, 0, 2)});
  // Every rank has it; the slot is of a higher rank, wider and taller than the adapter.
  exact({block(d.a, d.b, 2), block(d.a, d.b, 2)});
  exact({block(pad_rank(d.a, Side::A, 8), pad_rank(d.b, Side::B, 8), 2)});
  const auto grown = [](const Tensor& t, int dim, Shape zeros) {
    return Tensor::concat(dim, std::vector<Tensor>{t, Tensor::zeros(DType::BF16, zeros)});
  };
  exact({block(grown(d.a, 1, {3, 4}), grown(d.b, 0, {2, 3}), 2)});
}

TEST_CASE("what is lost, scaled or never trained is off by that much") {
  const Delta d = delta(DType::BF16, 2);
  const ServedDelta lost = measured(d, {});
  CHECK(lost.is_lost());
  CHECK(lost.relative() == doctest::Approx(1));
  const ServedDelta half = measured(d, {block(d.a, d.b, 1)});
  CHECK(half.is_wrong());
  CHECK_FALSE(half.is_lost());
  CHECK(half.relative() == doctest::Approx(0.5));
  const ServedDelta other = measured(Deltas{}, {block(d.a, d.b, 1)});
  CHECK(other.is_wrong());
  CHECK(std::isinf(other.relative()));
  CHECK_FALSE(measured({d.a, Tensor::zeros(DType::BF16, {12, 3}), 2}, {}).is_wrong());
}

TEST_CASE("any blocks are measured as the matrices they stand for") {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    CAPTURE(seed);
    const Delta d{random({3, 10}, seed), random({12, 3}, seed + 100), 1.5};
    const std::vector<ServedBlock> blocks = {
        at(block(random({2, 7}, seed + 200), random({5, 2}, seed + 300), 0.5), 1, 6),
        at(block(random({4, 6}, seed + 400), random({4, 4}, seed + 500)), 6, 0, 2)};
    Dense meant(256), served(256);
    add(d.a, d.b, d.scale, ServedBlock{}, meant);
    for (const ServedBlock& b : blocks) add(b.a, b.b, b.scale, b, served);
    const ServedDelta found = measured(d, blocks);
    CHECK(found.meant == doctest::Approx(norm(meant)));
    CHECK(found.served == doctest::Approx(norm(served)));
    for (size_t i = 0; i < meant.size(); ++i) served[i] -= meant[i];
    CHECK(found.apart == doctest::Approx(norm(served)));
  }
}

TEST_CASE("rounding to the server's type explains what it can, and no more") {
  const Delta wide = delta(DType::F32, 5.0 / 3);
  const Tensor a = as_bf16(wide.a);
  std::vector<float> scaled;
  for (double value : read_double(as_bf16(wide.b)))
    scaled.push_back(static_cast<float>(value * wide.scale));
  const Tensor b = as_bf16(Tensor::of_f32({12, 3}, scaled));
  CHECK(measured(wide, {block(a, b)}).same);
  // The same product, of factors in another order: measured.
  const Tensor other_a = Tensor::concat(0, std::vector<Tensor>{a.slice(0, 1, 2), a.slice(0, 0, 1)});
  const Tensor other_b = Tensor::concat(1, std::vector<Tensor>{b.slice(1, 1, 2), b.slice(1, 0, 1)});
  const ServedDelta found = measured(wide, {block(other_a, other_b)});
  CHECK_FALSE(found.same);
  CHECK(found.apart > 0);
  CHECK(found.rounding > 2 * found.apart);
  CHECK(found.rounding < 0.03 * found.meant);
  CHECK_FALSE(found.is_wrong());
  CHECK(measured(wide, {block(a, b, 1.05)}).is_wrong());
  // BF16 factors and a power of two are held as they are: a hundredth is reported.
  const Delta narrow = delta(DType::BF16, 2);
  CHECK(measured(narrow, {block(narrow.a, narrow.b, 2.02)}).is_wrong());
  CHECK_FALSE(measured(narrow, {block(narrow.a, narrow.b, 2 * (1 + 1e-8))}).is_wrong());
}

TEST_CASE("what is not finite is not measured, or wrong where the server made it so") {
  const Delta d = delta(DType::BF16, 2);
  const auto filled = [](const Shape& shape, float value) {
    return as_bf16(
        Tensor::of_f32(shape, std::vector<float>(static_cast<size_t>(shape[0] * shape[1]), value)));
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const ServedDelta unknown = measured({filled({3, 10}, nan), d.b, 2}, {block(d.a, d.b, 2)});
  CHECK_FALSE(unknown.measured);
  CHECK_FALSE(unknown.is_wrong());
  CHECK(measured(d, {block(d.a, filled({12, 3}, infinity))}).is_wrong());
  for (const DType dtype : {DType::F64, DType::F32, DType::F16, DType::BF16})
    for (const float value : {nan, infinity, -infinity}) {  // on both sides, the same bits
      std::vector<float> values(30, 0.5F);
      values[17] = value;
      const Tensor a = cast_tensors({{"", Tensor::of_f32({3, 10}, values)}}, dtype).begin()->second;
      const Delta broken{a, random({12, 3}, 2, dtype), 2};
      CHECK_FALSE(measured(broken, {block(a, broken.b, 2)}).same);
      const Delta whole = delta(dtype, 2);
      CHECK(measured(whole, {block(whole.a, whole.b, 2)}).same);
    }
  const Delta integers{Tensor::zeros(DType::I8, {3, 10}), Tensor::zeros(DType::I8, {12, 3}), 2};
  CHECK_FALSE(measured(integers, {block(d.a, d.b)}).measured);
}

TEST_CASE("a module has one key by whichever of its names, and an embedding is a pair") {
  Adapter adapter;
  adapter.config.r = 3;
  adapter.config.lora_alpha = 6;
  adapter.dense["model.layers.0.attn.q_proj"] = {random({3, 64}, 1), random({64, 3}, 2),
                                                 Scaling{3, 6, false}, false};
  adapter.extras["model.embed_tokens.lora_embedding_A"] = {ExtraKind::embedding_factor,
                                                           random({3, 160}, 3)};
  adapter.extras["model.embed_tokens.lora_embedding_B"] = {ExtraKind::embedding_factor,
                                                           random({64, 3}, 4)};
  adapter.extras["lm_head.weight"] = {ExtraKind::saved_module, random({160, 64}, 5)};
  const ModelSpec& gpt_oss = test::vllm_base("gpt_oss").spec;
  const Deltas meant = meant_deltas(adapter, gpt_oss);
  REQUIRE(meant.size() == 2);
  CHECK(meant.contains({"model.layers.0.self_attn.q_proj", -1, -1}));
  CHECK(meant.at({"model.embed_tokens", -1, -1}).scale == 2);
}
