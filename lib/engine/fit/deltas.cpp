#include "lib/engine/fit/deltas.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "lib/adapter/tensor_name.h"
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

// Half a unit in the last place, relative, of a type's normal numbers.
double roundoff(DType dtype) {
  return std::ldexp(1, dtype == DType::BF16  ? -8
                       : dtype == DType::F16 ? -11
                       : dtype == DType::F32 ? -24
                                             : -53);
}

// What one rounding of each element of lora_B may do, relative.
double tolerance(const Delta& meant, const Delta& fitted) {
  const double ratio = meant.scale / fitted.scale;
  const bool exact = fitted.scale == 0 || std::fabs(ratio - 1) < 1e-12 || is_power_of_two(ratio);
  const bool tiny =
      fitted.b.dtype() == DType::F16;  // a power of two can leave F16's normal numbers
  return exact && !tiny ? 0 : 1.01 * roundoff(fitted.b.dtype());
}

void compare(const std::string& name, const Delta& meant, const Delta& fitted) {
  const ProductDistance d = delta_distance(meant, fitted);
  if (!std::isfinite(d.x) && !std::isfinite(d.y)) return;
  const double rounding = tolerance(meant, fitted) * std::max(d.x, d.x_parts);
  if (!(d.apart <= rounding))
    throw Error(name, fmt::format("verification failed: its delta is off by {:.3g} of its norm, "
                                  "rounding explains {:.3g}",
                                  d.relative(), d.x > 0 ? rounding / d.x : 0));
}

void must_be_zero(const std::string& name, const Delta& fitted) {
  if (const double found = delta_norm(fitted); found != 0)
    throw Error(
        name, fmt::format("verification failed: its delta has the norm {:.3g}, expected 0", found));
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

Deltas all_deltas(const Adapter& adapter) {
  Deltas out = deltas_of(adapter);
  for (const EmbeddingPair& pair : embedding_pairs(adapter))
    out[{pair.module, -1, -1}] = {adapter.extras.at(pair.a).tensor,
                                  adapter.extras.at(pair.b).tensor, pair.scaling.value()};
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
    if (found == before.end())
      must_be_zero(to_string(key), delta);
    else
      compare(to_string(key), found->second, delta);
  });
  return static_cast<int64_t>(all.size());
}

}  // namespace moelora
