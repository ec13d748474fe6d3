#include "lib/engine/fit/verify_fit.h"

#include <fmt/format.h>

#include <cmath>
#include <random>

#include "lib/adapter/gate_up.h"
#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/base/parallel.h"
#include "lib/base/scale.h"
#include "lib/engine/fit/deltas.h"

namespace moelora {
namespace {

using Deltas = std::map<std::string, Delta>;

void add_experts(const ExpertKey& key, const ExpertPair& pair, int64_t experts, Deltas& out) {
  for (int64_t e = 0; e < experts; ++e)
    if (pair.a.has(e))
      out[fmt::format("layer {} expert {} {}", key.layer, e, projection_name(key.projection))] = {
          pair.a.at(e), pair.b.at(e), pair.scaling_of(e).value()};
}

Deltas deltas_of(Adapter adapter) {
  split_gate_up(adapter);
  Deltas out;
  for (const auto& [module, pair] : adapter.dense)
    out[module] = {pair.a, pair.b, pair.scaling.value()};
  for (const EmbeddingPair& pair : embedding_pairs(adapter))
    out[pair.module] = {adapter.extras.at(pair.a).tensor, adapter.extras.at(pair.b).tensor,
                        pair.scaling.value()};
  for (const auto& [key, pair] : adapter.experts) add_experts(key, pair, adapter.expert_count, out);
  return out;
}

// delta * x, and for each row the sum of the magnitudes that it was made of.
struct Product {
  std::vector<double> value, magnitude;
};

Product product(const Delta& delta, const std::vector<double>& x) {
  const std::vector<double> a = read_double(delta.a), b = read_double(delta.b);
  const auto rank = static_cast<size_t>(delta.a.dim(0)), rows = static_cast<size_t>(delta.b.dim(0));
  std::vector<double> inner(rank);
  for (size_t k = 0; k < rank; ++k)
    for (size_t i = 0; i < x.size(); ++i) inner[k] += a[k * x.size() + i] * x[i];
  Product out{std::vector<double>(rows), std::vector<double>(rows)};
  for (size_t o = 0; o < rows; ++o)
    for (size_t k = 0; k < rank; ++k) {
      const double term = delta.scale * b[o * rank + k] * inner[k];
      out.value[o] += term;
      out.magnitude[o] += std::fabs(term);
    }
  return out;
}

// Half a unit in the last place, relative, of a type's normal numbers.
double roundoff(DType dtype) {
  return std::ldexp(1, dtype == DType::BF16  ? -8
                       : dtype == DType::F16 ? -11
                       : dtype == DType::F32 ? -24
                                             : -53);
}

double tolerance(const Delta& meant, const Delta& fitted) {
  constexpr double kSummation = 1e-11;
  const double ratio = meant.scale / fitted.scale;
  const bool exact = fitted.scale == 0 || std::fabs(ratio - 1) < 1e-12 || is_power_of_two(ratio);
  const bool tiny =
      fitted.b.dtype() == DType::F16;  // a power of two can leave F16's normal numbers
  return kSummation + (exact && !tiny ? 0 : 1.01 * roundoff(fitted.b.dtype()));
}

std::vector<double> signs(int64_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<double> out(static_cast<size_t>(count));
  for (double& sign : out) sign = (random() & 1) != 0 ? 1 : -1;
  return out;
}

[[noreturn]] void differs(const std::string& name, size_t row, double found, double expected) {
  throw Error(name, fmt::format("verification failed: row {} of its delta times a vector is {}, "
                                "expected {}",
                                row, found, expected));
}

void compare(const std::string& name, const Delta* meant, const Delta& fitted, uint64_t seed) {
  const std::vector<double> x = signs(fitted.a.dim(1), seed);
  const Product found = product(fitted, x);
  const Product expected = meant == nullptr ? Product{} : product(*meant, x);
  const double bound = meant == nullptr ? 0 : tolerance(*meant, fitted);
  for (size_t o = 0; o < found.value.size(); ++o) {
    const double want = meant == nullptr ? 0 : expected.value[o];
    const double slack =
        meant == nullptr ? 0 : bound * (expected.magnitude[o] + found.magnitude[o]);
    if (!std::isfinite(want) && !std::isfinite(found.value[o])) continue;
    if (!(std::fabs(found.value[o] - want) <= slack)) differs(name, o, found.value[o], want);
  }
}

}  // namespace

int64_t verify_fit(const Adapter& meant, const Adapter& fitted, int threads) {
  const Deltas before = deltas_of(meant), after = deltas_of(fitted);
  for (const auto& entry : before)
    if (after.count(entry.first) == 0)
      throw Error(entry.first, "verification failed: it has no delta any more");
  std::vector<const Deltas::value_type*> all;
  for (const auto& entry : after) all.push_back(&entry);
  parallel_for(static_cast<int64_t>(all.size()), threads, [&](int64_t i, int) {
    const auto& [name, delta] = *all[static_cast<size_t>(i)];
    const auto found = before.find(name);
    compare(name, found == before.end() ? nullptr : &found->second, delta,
            static_cast<uint64_t>(i) + 1);
  });
  return static_cast<int64_t>(all.size());
}

}  // namespace moelora
