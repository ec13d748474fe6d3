#include "lib/compare/weight_distance.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "tests/adapter/decode.h"
#include "tests/adapter/made_adapter.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const std::string kData = MOELORA_TEST_DATA;

std::string golden(const std::string& family, const std::string& name) {
  return kData + "/" + family + "/" + name;
}

LoadedAdapter load(const std::string& family, const std::string& name, ReadOptions read = {}) {
  LoadOptions options;
  options.base = golden(family, "base");
  options.read = read;
  return load_adapter(golden(family, name), options);
}

double frobenius(const Matrix& m) {
  double sum = 0;
  for (const double x : m.data) sum += x * x;
  return std::sqrt(sum);
}

double frobenius_apart(const Matrix& a, const Matrix& b) {
  double sum = 0;
  for (size_t i = 0; i < a.data.size(); ++i) sum += std::pow(a.data[i] - b.data[i], 2);
  return std::sqrt(sum);
}

// decode_deltas' name of a place.
std::string decoded_name(const DeltaKey& key) {
  const std::string name = to_string(key);
  return key.expert < 0 ? name : name.substr(0, name.size() - 5);  // without "_proj"
}

struct Pair {
  Adapter a, b;
  std::optional<SameUpTo> explain(double tolerance = 1e-6) const {
    const WeightDiff diff = weight_distances(deltas_of(a), deltas_of(b), {});
    return same_up_to(a, b, diff, tolerance, 0);
  }
};

Pair twins(const std::string& family, const std::string& name) {
  Adapter a = load(family, name).adapter;
  return {a, a};
}

}  // namespace

TEST_CASE("distances, norms and inner products are those of the deltas themselves, in fp64") {
  DecodeOptions options;
  options.experts = 4;
  options.intermediate = 48;
  options.layout = "peft-params";
  options.interleaved = true;
  for (const char* other : {"peft_params_rslora", "peft_params_bf16", "peft_patterns"}) {
    CAPTURE(other);
    const auto dense_a = decode_deltas(golden("gpt_oss", "peft_params"), options),
               dense_b = decode_deltas(golden("gpt_oss", other), options);
    const WeightDiff diff = weight_distances(deltas_of(load("gpt_oss", "peft_params").adapter),
                                             deltas_of(load("gpt_oss", other).adapter), {});
    REQUIRE(diff.pairs.size() >= 24);
    for (const Distance& d : diff.pairs) {
      CAPTURE(to_string(d.key));
      const Matrix &x = dense_a.at(decoded_name(d.key)), &y = dense_b.at(decoded_name(d.key));
      CHECK(d.norm_a == doctest::Approx(frobenius(x)).epsilon(1e-12));
      CHECK(d.norm_b == doctest::Approx(frobenius(y)).epsilon(1e-12));
      CHECK(d.apart == doctest::Approx(frobenius_apart(x, y)).epsilon(1e-9));
      CHECK(d.effective_rank_a > 1);
      CHECK(d.effective_rank_a <= 4 + 1e-9);
    }
  }
}

TEST_CASE("NaN is different from everything, itself included") {
  Pair pair = twins("gpt_oss", "peft_params");
  Tensor& b = pair.b.dense.begin()->second.b;
  std::vector<float> values(static_cast<size_t>(b.elements()), 0.5F);
  values[3] = std::nanf("");
  b = Tensor::of_f32(b.shape(), values);
  const WeightDiff diff = weight_distances(deltas_of(pair.a), deltas_of(pair.b), {});
  CHECK(std::count_if(diff.pairs.begin(), diff.pairs.end(),
                      [](const Distance& d) { return !(d.relative() <= 1e-6); }) == 1);
}

TEST_CASE("what a converter got wrong is named") {
  SUBCASE("nothing") { CHECK(!twins("gpt_oss", "peft_params").explain()); }
  SUBCASE("gate and up exchanged") {
    Pair pair = twins("mixtral", "per_expert");
    for (int layer = 0; layer < 2; ++layer)
      std::swap(pair.b.experts.at({layer, Projection::gate}),
                pair.b.experts.at({layer, Projection::up}));
    CHECK(row_of(pair.explain()->mistake).id == "gate-up-exchanged");
  }
  SUBCASE("interleaved rows taken for halves, and the reverse") {
    Pair pair = twins("gpt_oss", "peft_params");
    REQUIRE(pair.b.gate_up_order == GateUpOrder::interleaved);
    pair.b.gate_up_order = GateUpOrder::halves;
    CHECK(row_of(pair.explain()->mistake).id == "gate-up-interleaved");
    std::swap(pair.a, pair.b);
    CHECK(row_of(pair.explain()->mistake).id == "gate-up-halves");
  }
  SUBCASE("the order of a stacked lora_B") {
    const Adapter right = load("qwen3_moe", "peft_params").adapter;
    const Adapter wrong = load("qwen3_moe", "peft_params", {BOrder::expert_major, {}}).adapter;
    CHECK(row_of(Pair{right, wrong}.explain()->mistake).id == "b-order-rank-major");
    CHECK(row_of(Pair{wrong, right}.explain()->mistake).id == "b-order-expert-major");
  }
  SUBCASE("roles exchanged where shapes do not show it") {
    const Adapter natural =
        load("gpt_oss_square", "peft_params_down_only", {{}, Roles::natural}).adapter;
    const Adapter swapped =
        load("gpt_oss_square", "peft_params_down_only", {{}, Roles::swapped}).adapter;
    CHECK(row_of(Pair{natural, swapped}.explain()->mistake).id == "roles-exchanged");
  }
  SUBCASE("experts rotated") {
    Pair pair = twins("mixtral", "per_expert");
    for (auto& [key, experts] : pair.b.experts)
      for (Factor* factor : {&experts.a, &experts.b})
        std::rotate(factor->parts.begin(), factor->parts.begin() + 1, factor->parts.end());
    const auto found = pair.explain();
    CHECK(row_of(found->mistake).id == "expert-permutation");
    CHECK(found->text.find("expert 0 of A is 3 of B") != std::string::npos);
  }
  SUBCASE("a scale lost") {
    Pair pair = twins("gpt_oss", "peft_params");
    for (auto& entry : pair.b.dense) entry.second.scaling.alpha /= 2;
    for (auto& entry : pair.b.experts)
      for (Scaling& scaling : entry.second.scaling) scaling.alpha /= 2;
    const auto found = pair.explain();
    CHECK(row_of(found->mistake).id == "scale");
    CHECK(found->text == "every delta of B is 0.5 times A's");
  }
  SUBCASE("two mistakes at once are not explained by one") {
    Pair pair = twins("mixtral", "per_expert");
    for (int layer = 0; layer < 2; ++layer)
      std::swap(pair.b.experts.at({layer, Projection::gate}),
                pair.b.experts.at({layer, Projection::up}));
    for (Scaling& scaling : pair.b.experts.at({0, Projection::down}).scaling) scaling.alpha *= 3;
    CHECK(!pair.explain());
  }
}
