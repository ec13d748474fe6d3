#include "lib/adapter/delta_pair.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lib/adapter/gate_up.h"
#include "lib/base/parallel.h"

namespace moelora {
namespace {

void add_experts(const ExpertKey& key, const ExpertPair& pair, int64_t experts, Deltas& out) {
  for (int64_t e = 0; e < experts; ++e) {
    if (!pair.a.has(e) || !pair.b.has(e)) continue;
    out[{std::string(projection_name(key.projection)), key.layer, e}] = {
        pair.a.at(e), pair.b.at(e), pair.scaling_of(e).value()};
  }
}

}  // namespace

std::string to_string(const DeltaKey& key) {
  if (key.expert < 0) return key.module;
  return fmt::format("layer {} expert {} {}", key.layer, key.expert, key.module);
}

Deltas deltas_of(Adapter adapter) {
  if (adapter.has(Projection::gate_up) && adapter.gate_up_order) split_gate_up(adapter);
  Deltas out;
  for (const auto& [module, pair] : adapter.dense)
    out[{module, -1, -1}] = {pair.a, pair.b, pair.scaling.value()};
  for (const auto& [key, pair] : adapter.experts) add_experts(key, pair, adapter.expert_count, out);
  return out;
}

FactorValues rows_of(const Tensor& a, const std::byte* values) {
  return {a.dtype(), values, a.dim(0), a.dim(1), false};
}

FactorValues columns_of(const Tensor& b, const std::byte* values) {
  return {b.dtype(), values, b.dim(1), b.dim(0), true};
}

double delta_norm(const Delta& delta) {
  const auto a = delta.a.read(), b = delta.b.read();
  const FactorValues rows[] = {rows_of(delta.a, a.data())};
  const FactorValues columns[] = {columns_of(delta.b, b.data())};
  return std::fabs(delta.scale) * std::sqrt(std::max(0.0, RankOneParts(rows, columns).all()));
}

double delta_norm(const std::vector<Delta>& deltas, int threads) {
  std::vector<double> norms(deltas.size());
  parallel_for(static_cast<int64_t>(deltas.size()), threads, [&](int64_t i, int) {
    norms[static_cast<size_t>(i)] = delta_norm(deltas[static_cast<size_t>(i)]);
  });
  return std::sqrt(std::inner_product(norms.begin(), norms.end(), norms.begin(), 0.0));
}

}  // namespace moelora
