#include "lib/engine/fit/deltas.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "lib/adapter/tensor_name.h"
#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/base/parallel.h"
#include "lib/base/scale.h"

namespace moelora {
namespace {

void check(const EmbeddingPair& pair, const Tensor& a, const Tensor& b) {
  if (a.rank() != 2 || b.rank() != 2 || a.dim(0) != b.dim(1) || a.dim(0) != pair.scaling.rank)
    throw Error(pair.a,
                fmt::format("{} and {} of {} do not make a pair of rank {}", to_string(a.shape()),
                            pair.b, to_string(b.shape()), pair.scaling.rank));
}

// How far one rounding to nearest moves a value: relative to the power of two below it, or near
// zero by half a step.
struct Rounding {
  double relative, absolute;
};

Rounding rounding_of(DType dtype) {
  if (dtype == DType::BF16) return {std::ldexp(1, -8), std::ldexp(1, -134)};
  if (dtype == DType::F16) return {std::ldexp(1, -11), std::ldexp(1, -25)};
  if (dtype == DType::F32) return {std::ldexp(1, -24), std::ldexp(1, -150)};
  return {std::ldexp(1, -53), 0};
}

// What rounding may have done to an element of the meant lora_B, in units of the delta.
class Moved {
 public:
  Moved(const Delta& meant, const Delta& fitted)
      : one_(rounding_of(fitted.b.dtype())), scale_(std::fabs(fitted.scale)) {
    const double ratio = meant.scale / fitted.scale;
    if (scale_ == 0 || std::fabs(ratio - 1) < 1e-12 || is_power_of_two(ratio)) one_.relative = 0;
  }

  // `b`: the element times the scale. What is zero stays so.
  double by(double b) const {
    if (b == 0 || scale_ == 0) return 0;
    const double below = std::exp2(std::floor(std::log2(std::fabs(b) / scale_)));
    return 1.01 * scale_ * std::max(one_.relative * below, one_.absolute);
  }

 private:
  Rounding one_;
  double scale_;
};

// The rows a_j of both lora_A, one below the other: their inner products and their lengths.
struct Rows {
  size_t count;
  std::vector<double> products, lengths;
};

Rows rows_of_both(const Delta& x, const Delta& y) {
  const auto xa = x.a.read(), ya = y.a.read();
  const FactorValues both[] = {rows_of(x.a, xa.data()), rows_of(y.a, ya.data())};
  const Gram gram = gram_of(both);
  Rows out{static_cast<size_t>(gram.rows()), {}, {}};
  for (int64_t k = 0; k < gram.rows(); ++k) {
    for (int64_t j = 0; j < gram.rows(); ++j) out.products.push_back(gram.at(k, j));
    out.lengths.push_back(std::sqrt(gram.at(k, k)));
  }
  return out;
}

// A row of a delta, sum_k b_k a_k with its scale in b, times every a_j: two rows are the same where
// these are, as the a_j span both.
struct RowProducts {
  std::vector<double> values;
  std::vector<double> rounding;  // how far rounding of the b_k may move them
  double parts = 0;              // sum_k |b_k| |a_k|
};

// `b`: the delta's values of lora_B. REQUIRES: its rows of lora_A are those from `first` on.
// `moved`: null for what is exact.
RowProducts row_products(const Delta& delta, const std::vector<double>& b, size_t row,
                         const Rows& rows, size_t first, const Moved* moved) {
  const auto rank = static_cast<size_t>(delta.a.dim(0));
  RowProducts out{std::vector<double>(rows.count), std::vector<double>(rows.count)};
  for (size_t k = 0; k < rank; ++k) {
    const double scaled = delta.scale * b[row * rank + k];
    const double rounding = moved == nullptr ? 0 : moved->by(scaled);
    const double* products = rows.products.data() + (first + k) * rows.count;
    for (size_t j = 0; j < rows.count; ++j) {
      out.values[j] += scaled * products[j];
      out.rounding[j] += rounding * std::fabs(products[j]);
    }
    out.parts += std::fabs(scaled) * rows.lengths[first + k];
  }
  return out;
}

void compare(const std::string& name, const Delta& meant, const Delta& fitted) {
  constexpr double kSummation = 1e-11;
  if (fitted.a.dim(1) != meant.a.dim(1) || fitted.b.dim(0) != meant.b.dim(0))
    throw Error(name,
                fmt::format("verification failed: its delta is {} by {}, expected {} by {}",
                            fitted.b.dim(0), fitted.a.dim(1), meant.b.dim(0), meant.a.dim(1)));
  const Rows rows = rows_of_both(meant, fitted);
  const Moved moved(meant, fitted);
  const std::vector<double> meant_b = read_double(meant.b), fitted_b = read_double(fitted.b);
  const auto fitted_first = static_cast<size_t>(meant.a.dim(0));
  for (size_t row = 0; row < static_cast<size_t>(fitted.b.dim(0)); ++row) {
    const RowProducts x = row_products(meant, meant_b, row, rows, 0, &moved);
    const RowProducts y = row_products(fitted, fitted_b, row, rows, fitted_first, nullptr);
    for (size_t j = 0; j < rows.count; ++j) {
      const double want = x.values[j], found = y.values[j];
      if (!std::isfinite(want) && !std::isfinite(found)) continue;
      const double slack = x.rounding[j] + kSummation * (x.parts + y.parts) * rows.lengths[j];
      if (!(std::fabs(found - want) <= slack))
        throw Error(name, fmt::format("verification failed: row {} of its delta times a vector is "
                                      "{}, expected {}",
                                      row, found, want));
    }
  }
}

// Of the same shape, with no rank.
Delta nothing_like(const Delta& delta) {
  return {delta.a.slice(0, 0, 0), delta.b.slice(1, 0, 0), delta.scale};
}

// Every delta of an adapter (deltas_of), and those of its embeddings under their modules' names.
Deltas all_deltas(const Adapter& adapter) {
  Deltas out = deltas_of(adapter);
  for (const EmbeddingPair& pair : embedding_pairs(adapter))
    out[{pair.module, -1, -1}] = {adapter.extras.at(pair.a).tensor,
                                  adapter.extras.at(pair.b).tensor, pair.scaling.value()};
  return out;
}

}  // namespace

std::vector<EmbeddingPair> embedding_pairs(const Adapter& adapter) {
  std::map<std::string, EmbeddingPair> pairs;
  for (const auto& [name, extra] : adapter.extras) {
    if (extra.kind != ExtraKind::embedding_factor) continue;
    const TensorName parsed = parse_tensor_name(name);
    EmbeddingPair& pair = pairs[parsed.module];
    (parsed.part == TensorPart::embedding_a ? pair.a : pair.b) = name;
  }
  std::vector<EmbeddingPair> out;
  for (auto& [module, pair] : pairs) {
    if (pair.a.empty() || pair.b.empty())
      throw Error(pair.a.empty() ? pair.b : pair.a, "is half of an embedding's pair",
                  "the file is incomplete: save the adapter again");
    pair.module = module;
    pair.scaling = adapter.config.scaling(module);
    check(pair, adapter.extras.at(pair.a).tensor, adapter.extras.at(pair.b).tensor);
    out.push_back(std::move(pair));
  }
  return out;
}

int64_t verify_fit(const Adapter& meant, const Adapter& fitted, int threads) {
  const Deltas before = all_deltas(meant), after = all_deltas(fitted);
  for (const auto& entry : before)
    if (after.count(entry.first) == 0)
      throw Error(to_string(entry.first), "verification failed: it has no delta any more");
  std::vector<const Deltas::value_type*> all;
  for (const auto& entry : after) all.push_back(&entry);
  parallel_for(static_cast<int64_t>(all.size()), threads, [&](int64_t i, int) {
    const auto& [key, delta] = *all[static_cast<size_t>(i)];
    const auto found = before.find(key);
    compare(to_string(key), found != before.end() ? found->second : nothing_like(delta), delta);
  });
  return static_cast<int64_t>(all.size());
}

}  // namespace moelora
