#include "lib/base/tensor.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

#include "lib/base/error.h"

using namespace moelora;

namespace {

// A tensor whose element i holds the number i, and a plain array to compare with.
Tensor counting(const Shape& shape) {
  std::vector<float> values(static_cast<size_t>(
      std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>())));
  std::iota(values.begin(), values.end(), 0.0F);
  return Tensor::of_f32(shape, values);
}

std::vector<float> values(const Tensor& t) {
  std::vector<float> out(static_cast<size_t>(t.elements()));
  const auto bytes = t.read();
  if (!bytes.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

// The same operations done the slow way, on an explicit array: the oracle of the random test.
struct Plain {
  Shape shape;
  std::vector<float> data;

  float at(const Shape& index) const {
    int64_t flat = 0;
    for (size_t d = 0; d < shape.size(); ++d) flat = flat * shape[d] + index[d];
    return data[static_cast<size_t>(flat)];
  }

  template <class F>
  static Plain make(const Shape& shape, F&& f) {
    Plain out{shape, {}};
    Shape index(shape.size(), 0);
    const int64_t n = std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
    for (int64_t i = 0; i < n; ++i) {
      out.data.push_back(f(index));
      for (size_t d = shape.size(); d-- > 0;) {
        if (++index[d] < shape[d]) break;
        index[d] = 0;
      }
    }
    return out;
  }
};

}  // namespace

TEST_CASE("a stacked lora_B in PEFT's order gives each expert its columns") {
  // B [out, r*E], column = k*E + e.
  const int64_t out = 3, r = 2, experts = 4;
  const Tensor b = counting({out, r * experts});
  const Tensor per_expert = b.reshape({out, r, experts}).permute({2, 0, 1});  // [E, out, r]
  for (int64_t e = 0; e < experts; ++e) {
    const auto got = values(per_expert.select(0, e));
    for (int64_t o = 0; o < out; ++o)
      for (int64_t k = 0; k < r; ++k)
        CHECK(got[static_cast<size_t>(o * r + k)] ==
              static_cast<float>(o * r * experts + k * experts + e));
  }
}

TEST_CASE("stacking per-expert factors and taking them apart is the identity") {
  std::vector<Tensor> parts;
  for (int e = 0; e < 5; ++e) parts.push_back(counting({3, 2}));
  const Tensor b = Tensor::stack(parts).permute({1, 2, 0}).reshape({3, 10});
  const Tensor back = b.reshape({3, 2, 5}).permute({2, 0, 1});
  for (int e = 0; e < 5; ++e) CHECK(values(back.select(0, e)) == values(parts[0]));
}

TEST_CASE("parts are put at their places, whatever views they are, and the rest is zero") {
  const Tensor a = counting({3, 2});  // 0 1 / 2 3 / 4 5
  const Tensor split = counting({4}).reshape({2, 2}).transpose(0, 1).reshape({1, 4});  // 0 2 1 3
  const std::vector<PlacedTensor> parts{
      {a.slice(0, 1, 2).transpose(0, 1), {0, 0}}, {split, {2, 0}}, {a.slice(0, 0, 0), {1, 2}}};
  const Tensor made = Tensor::assemble(DType::F32, {4, 4}, parts);
  CHECK(values(made) == std::vector<float>{2, 4, 0, 0, 3, 5, 0, 0, 0, 2, 1, 3, 0, 0, 0, 0});
  CHECK(values(made.slice(0, 1, 2)) == std::vector<float>{3, 5, 0, 0, 0, 2, 1, 3});
}

TEST_CASE("a part of another type, or beyond the shape, is refused") {
  const auto put = [](const Tensor& part, std::vector<int64_t> at) {
    const std::vector<PlacedTensor> parts{{part, std::move(at)}};
    return Tensor::assemble(DType::F32, {2, 2}, parts);
  };
  CHECK_THROWS_AS(put(counting({2, 1}), {0, 2}), Error);
  CHECK_THROWS_AS(put(counting({2, 1}), {1, 0}), Error);
  CHECK_THROWS_AS(put(counting({2, 1}), {-1, 0}), Error);
  CHECK_THROWS_AS(put(counting({2, 3}), {0, 0}), Error);
  CHECK_THROWS_AS(put(counting({2}), {0}), Error);
  CHECK_THROWS_AS(put(Tensor::zeros(DType::BF16, {1, 1}), {0, 0}), Error);
}

TEST_CASE("what no piece covers is zero, and unequal recipes concatenate") {
  const Tensor a = counting({2, 3});
  const Tensor joined = Tensor::concat(0, std::vector{a, Tensor::zeros(DType::F32, {1, 3}), a});
  CHECK(values(joined) == std::vector<float>{0, 1, 2, 3, 4, 5, 0, 0, 0, 0, 1, 2, 3, 4, 5});
  const Tensor diagonal = Tensor::concat(
      1, std::vector{Tensor::concat(0, std::vector{a, Tensor::zeros(DType::F32, {2, 3})}),
                     Tensor::concat(0, std::vector{Tensor::zeros(DType::F32, {2, 3}), a})});
  CHECK(values(diagonal) == std::vector<float>{0, 1, 2, 0, 0, 0, 3, 4, 5, 0, 0, 0,  //
                                               0, 0, 0, 0, 1, 2, 0, 0, 0, 3, 4, 5});
}

TEST_CASE("a shape that does not fit is refused") {
  const Tensor a = counting({2, 3});
  CHECK_THROWS_AS(a.reshape({4}), Error);
  CHECK_THROWS_AS(a.slice(1, 2, 2), Error);
  CHECK_THROWS_AS(a.select(0, 2), Error);
  CHECK_THROWS_AS(a.broadcast(0, 4), Error);
  CHECK_THROWS_AS(Tensor::concat(0, std::vector{a, counting({2, 4})}), Error);
}

TEST_CASE("a dim that a tensor does not have is refused, of a tensor of rank 0 as of any") {
  for (const Tensor& t : {Tensor(), counting({3})}) {
    const int beyond = t.rank();
    CHECK_THROWS_AS(t.slice(beyond, 0, 0), Error);
    CHECK_THROWS_AS(t.select(beyond, 0), Error);
    CHECK_THROWS_AS(t.broadcast(beyond, 2), Error);
    CHECK_THROWS_AS(Tensor::concat(beyond, std::vector{t, t}), Error);
    CHECK_THROWS_AS(t.select(-1, 0), Error);
  }
  CHECK_THROWS_AS(Tensor().unstack(), Error);
}

TEST_CASE("random chains of operations agree with plain arrays") {
  std::mt19937 rng(7);
  const auto pick = [&](int64_t n) {
    return static_cast<int64_t>(rng() % static_cast<uint64_t>(n));
  };
  for (int round = 0; round < 4000; ++round) {
    Shape shape;
    for (int64_t d = 1 + pick(3); d-- > 0;) shape.push_back(1 + pick(6));
    Tensor lazy = counting(shape);
    Plain plain{shape, values(lazy)};
    for (int64_t step = 1 + pick(5); step-- > 0;) {
      CAPTURE(round);
      const auto rank = static_cast<int64_t>(plain.shape.size());
      const auto d = static_cast<size_t>(pick(rank));
      switch (pick(7)) {
        case 0: {  // permute
          std::vector<int> order(plain.shape.size());
          std::iota(order.begin(), order.end(), 0);
          std::shuffle(order.begin(), order.end(), rng);
          Shape to;
          for (int o : order) to.push_back(plain.shape[static_cast<size_t>(o)]);
          plain = Plain::make(to, [&](const Shape& i) {
            Shape from(i.size());
            for (size_t k = 0; k < i.size(); ++k) from[static_cast<size_t>(order[k])] = i[k];
            return plain.at(from);
          });
          lazy = lazy.permute(order);
          break;
        }
        case 1: {  // slice
          const int64_t first = pick(plain.shape[d]), count = 1 + pick(plain.shape[d] - first);
          Shape to = plain.shape;
          to[d] = count;
          plain = Plain::make(to, [&](Shape i) {
            i[d] += first;
            return plain.at(i);
          });
          lazy = lazy.slice(static_cast<int>(d), first, count);
          break;
        }
        case 2: {  // reshape: any factorisation of the element count
          auto rest = static_cast<int64_t>(plain.data.size());
          Shape to;
          while (rest > 1 && to.size() < 4) {
            std::vector<int64_t> divisors;
            for (int64_t k = 1; k <= rest; ++k)
              if (rest % k == 0) divisors.push_back(k);
            to.push_back(
                divisors[static_cast<size_t>(pick(static_cast<int64_t>(divisors.size())))]);
            rest /= to.back();
          }
          to.push_back(rest);
          plain.shape = to;
          lazy = lazy.reshape(to);
          break;
        }
        case 3: {  // concat with itself and a hole
          if (plain.data.size() > 400) break;
          const Tensor hole = Tensor::zeros(DType::F32, plain.shape);
          const int64_t n = plain.shape[d];
          Shape to = plain.shape;
          to[d] = 3 * n;
          plain = Plain::make(to, [&](Shape i) {
            if (i[d] / n == 1) return 0.0F;
            i[d] %= n;
            return plain.at(i);
          });
          lazy = Tensor::concat(static_cast<int>(d), std::vector{lazy, hole, lazy});
          break;
        }
        case 4: {  // unsqueeze and broadcast
          if (plain.data.size() > 400 || rank > 4) break;
          Shape to = plain.shape;
          to.insert(to.begin() + static_cast<std::ptrdiff_t>(d), 3);
          plain = Plain::make(to, [&](Shape i) {
            i.erase(i.begin() + static_cast<std::ptrdiff_t>(d));
            return plain.at(i);
          });
          lazy = lazy.unsqueeze(static_cast<int>(d)).broadcast(static_cast<int>(d), 3);
          break;
        }
        case 5: {  // select
          if (rank < 2) break;
          const int64_t index = pick(plain.shape[d]);
          Shape to = plain.shape;
          to.erase(to.begin() + static_cast<std::ptrdiff_t>(d));
          plain = Plain::make(to, [&](Shape i) {
            i.insert(i.begin() + static_cast<std::ptrdiff_t>(d), index);
            return plain.at(i);
          });
          lazy = lazy.select(static_cast<int>(d), index);
          break;
        }
        default: {  // concat of two different recipes of equal shape
          if (plain.data.size() > 400) break;
          const Tensor other = counting(plain.shape);
          const auto more = values(other);
          const Plain second{plain.shape, more};
          const int64_t n = plain.shape[d];
          Shape to = plain.shape;
          to[d] = 2 * n;
          plain = Plain::make(to, [&](Shape i) {
            const bool tail = i[d] >= n;
            i[d] %= n;
            return tail ? second.at(i) : plain.at(i);
          });
          lazy = Tensor::concat(static_cast<int>(d), std::vector{lazy, other});
        }
      }
      REQUIRE(lazy.shape() == plain.shape);
      REQUIRE(values(lazy) == plain.data);
      if (lazy.rank() < 2) continue;
      std::vector<float> rows;
      for (const Tensor& row : lazy.unstack()) {
        REQUIRE(row.shape() == Shape(plain.shape.begin() + 1, plain.shape.end()));
        for (const float value : values(row)) rows.push_back(value);
      }
      REQUIRE(rows == plain.data);
    }
  }
}

TEST_CASE("a strided tensor is what its strides say, and can be taken apart like any other") {
  const Tensor flat = counting({24});
  const SourcePtr source = flat.pieces().front().source;
  const Tensor t = Tensor::strided(source, {2, 3}, {12, 4});
  CHECK(values(t) == std::vector<float>{0, 4, 8, 12, 16, 20});
  CHECK(values(t.transpose(0, 1)) == std::vector<float>{0, 12, 4, 16, 8, 20});
  CHECK(values(t.slice(1, 1, 2).reshape({4})) == std::vector<float>{4, 8, 16, 20});
  SUBCASE("rows that overlap") {
    CHECK(values(Tensor::strided(source, {3, 2}, {1, 1})) == std::vector<float>{0, 1, 1, 2, 2, 3});
  }
  SUBCASE("a dim of one, whose stride nobody takes") {
    const Tensor plain = Tensor::strided(source, {4, 1, 6}, {6, 99, 1});
    CHECK(plain.same_recipe(Tensor(source, {4, 1, 6})));
  }
  SUBCASE("nothing at all") {
    const Shape none = {0, int64_t{1} << 62, int64_t{1} << 62};
    CHECK(Tensor::strided(source, none, {1, 1, 1}).bytes() == 0);
  }
}
