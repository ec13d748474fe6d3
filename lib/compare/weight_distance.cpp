#include "lib/compare/weight_distance.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <set>
#include <utility>

#include "lib/base/progress_meter.h"
#include "lib/compare/batches.h"

namespace moelora {
namespace {

bool same_bytes(const Tensor& x, const std::byte* x_data, const Tensor& y,
                const std::byte* y_data) {
  return x.dtype() == y.dtype() && x.shape() == y.shape() &&
         (x.bytes() == 0 || std::memcmp(x_data, y_data, x.bytes()) == 0);
}

// `values`: A and B of x, A and B of y.
Distance measured(const DeltaKey& key, const Delta& x, const Delta& y,
                  std::span<const std::byte* const> values) {
  Distance out;
  out.key = key;
  out.identical = x.scale == y.scale && same_bytes(x.a, values[0], y.a, values[2]) &&
                  same_bytes(x.b, values[1], y.b, values[3]);
  std::vector<FactorValues> a{rows_of(x.a, values[0])}, b{columns_of(x.b, values[1])};
  if (!out.identical) {
    a.push_back(rows_of(y.a, values[2]));
    b.push_back(columns_of(y.b, values[3]));
  }
  const RankOneParts parts(a, b);
  const int64_t first = x.a.dim(0), end = parts.size();
  const ProductDistance d = distance_of(parts, first, x.scale, y.scale);
  const auto rank_of = [&](int64_t from, int64_t to) {
    return effective_rank(parts.sum(from, to, from, to), parts.fourth_powers(from, to));
  };
  out.norm_a = d.x;
  out.effective_rank_a = rank_of(0, first);
  if (out.identical) {
    out.norm_b = out.norm_a;
    out.effective_rank_b = out.effective_rank_a;
    out.inner = out.norm_a * out.norm_a;
    return out;
  }
  out.norm_b = d.y;
  out.effective_rank_b = rank_of(first, end);
  out.inner = d.inner;
  out.apart = d.apart;
  return out;
}

bool same_shape(const Delta& a, const Delta& b) {
  return a.a.dim(1) == b.a.dim(1) && a.b.dim(0) == b.b.dim(0);
}

std::string shapes_text(const DeltaKey& key, const Delta& a, const Delta& b) {
  return fmt::format("{}: {} -> {} against {} -> {}", to_string(key), a.a.dim(1), a.b.dim(0),
                     b.a.dim(1), b.b.dim(0));
}

uint64_t bytes_of(const Deltas& deltas) {
  uint64_t sum = 0;
  for (const auto& entry : deltas) sum += entry.second.a.bytes() + entry.second.b.bytes();
  return sum;
}

}  // namespace

double effective_rank(double squares, double fourths) {
  return squares <= 0 || fourths <= 0 ? 0 : squares * squares / fourths;
}

double Distance::relative() const {
  return ProductDistance{norm_a, norm_b, inner, apart}.relative();
}

double Distance::cosine() const {
  if (norm_a == 0 && norm_b == 0) return 1;
  return norm_a == 0 || norm_b == 0 ? 0 : inner / (norm_a * norm_b);
}

WeightDiff weight_distances(const Deltas& a, const Deltas& b, const DistanceOptions& options) {
  WeightDiff out;
  std::vector<PlaceFactors> places;
  std::vector<std::pair<const Delta*, const Delta*>> deltas;
  for (const auto* entry : in_reading_order(a)) {
    const auto& [key, delta] = *entry;
    const auto other = b.find(key);
    if (other == b.end()) {
      out.only_a.push_back(key);
    } else if (!same_shape(delta, other->second)) {
      out.shapes_differ.push_back(shapes_text(key, delta, other->second));
    } else {
      places.push_back({key, {&delta.a, &delta.b, &other->second.a, &other->second.b}});
      deltas.emplace_back(&delta, &other->second);
    }
  }
  for (const auto& entry : b)
    if (a.count(entry.first) == 0) out.only_b.push_back(entry.first);
  out.pairs.resize(places.size());
  ProgressMeter progress("comparing", bytes_of(a) + bytes_of(b), options.job);
  measure_in_batches(
      places, options.threads,
      [&](size_t i, std::span<const std::byte* const> values) {
        out.pairs[i] = measured(places[i].key, *deltas[i].first, *deltas[i].second, values);
      },
      [&](uint64_t bytes) { progress.add(bytes); });
  std::sort(out.pairs.begin(), out.pairs.end(),
            [](const Distance& x, const Distance& y) { return x.key < y.key; });
  return out;
}

// ---- the same up to a mistake ----

namespace {

bool differs(const Distance& d, double tolerance) { return !(d.relative() <= tolerance); }

// The layers in which something differs; -1 for what is not a routed expert.
std::set<int> differing_layers(const WeightDiff& diff, double tolerance) {
  std::set<int> out;
  for (const Distance& d : diff.pairs)
    if (differs(d, tolerance)) out.insert(d.key.layer);
  return out;
}

Deltas of_layers(const Deltas& deltas, const std::set<int>& layers) {
  Deltas out;
  for (const auto& entry : deltas)
    if (entry.first.expert >= 0 && layers.count(entry.first.layer) != 0) out.insert(entry);
  return out;
}

bool all_equal(const Deltas& a, const Deltas& b, double tolerance, int threads) {
  const WeightDiff diff = weight_distances(a, b, {threads, {}});
  if (diff.pairs.empty() || !diff.only_a.empty() || !diff.only_b.empty() ||
      !diff.shapes_differ.empty())
    return false;
  return std::none_of(diff.pairs.begin(), diff.pairs.end(),
                      [&](const Distance& d) { return differs(d, tolerance); });
}

bool explains(const MistakeRow& row, const Deltas& a, Deltas b, int64_t experts, double tolerance,
              int threads) {
  return row.undo(b, experts) && all_equal(a, b, tolerance, threads);
}

// One factor between the two in every pair: B = c * A.
std::optional<SameUpTo> one_scale(const WeightDiff& diff, double tolerance) {
  std::optional<double> factor;
  for (const Distance& d : diff.pairs) {
    if (d.norm_a == 0 && d.norm_b == 0) continue;
    if (d.norm_a == 0 || d.norm_b == 0) return std::nullopt;
    const double c = d.inner / (d.norm_a * d.norm_a);
    const double rest = d.norm_b * d.norm_b - c * d.inner;  // |B - c A|^2
    const double noise = std::max(tolerance, kResolution) * d.norm_b;
    if (!(rest <= noise * noise)) return std::nullopt;
    if (factor && std::fabs(c / *factor - 1) > std::max(tolerance, kResolution))
      return std::nullopt;
    factor = c;
  }
  if (!factor) return std::nullopt;
  return SameUpTo{Mistake::scale, fmt::format("every delta of B is {:.6g} times A's", *factor)};
}

// Experts by the norms of their deltas: a permutation keeps the norms and exchanges the experts.
// Returns for each expert of A the one of B, -1 where the norms do not show it.
std::vector<int64_t> match_experts(const WeightDiff& diff, int layer) {
  std::map<std::string, std::map<int64_t, std::pair<double, double>>> norms;
  int64_t experts = 0;
  for (const Distance& d : diff.pairs)
    if (d.key.layer == layer && d.key.expert >= 0) {
      norms[d.key.module][d.key.expert] = {d.norm_a, d.norm_b};
      experts = std::max(experts, d.key.expert + 1);
    }
  std::vector<int64_t> out(static_cast<size_t>(experts), -1);
  const auto close = [](double x, double y) { return std::fabs(x - y) <= 1e-6 * std::max(x, y); };
  for (int64_t e = 0; e < experts; ++e)
    for (int64_t f = 0; f < experts && out[static_cast<size_t>(e)] < 0; ++f) {
      const bool fits = std::all_of(norms.begin(), norms.end(), [&](const auto& entry) {
        const auto x = entry.second.find(e), y = entry.second.find(f);
        return x != entry.second.end() && y != entry.second.end() &&
               close(x->second.first, y->second.second);
      });
      if (fits && std::find(out.begin(), out.end(), f) == out.end())
        out[static_cast<size_t>(e)] = f;
    }
  return out;
}

std::string permutation_text(const std::vector<int64_t>& order) {
  std::string moved;
  int count = 0;
  for (size_t e = 0; e < order.size(); ++e) {
    if (order[e] == static_cast<int64_t>(e)) continue;
    if (count++ < 4)
      moved += fmt::format("{}{} of A is {} of B", count > 1 ? ", " : "", e, order[e]);
  }
  return fmt::format("{} experts are in another place: expert {}{}", count, moved,
                     count > 4 ? ", ..." : "");
}

bool put_experts(Deltas& deltas, int layer, const std::vector<int64_t>& order) {
  Deltas out;
  for (const auto& [key, delta] : deltas) {
    if (key.layer != layer || key.expert < 0) {
      out[key] = delta;
      continue;
    }
    const auto at = std::find(order.begin(), order.end(), key.expert);
    if (at == order.end()) return false;
    out[{key.module, key.layer, at - order.begin()}] = delta;
  }
  deltas = std::move(out);
  return true;
}

std::optional<SameUpTo> permuted_experts(const Deltas& a, Deltas b, const WeightDiff& diff,
                                         const std::set<int>& layers, double tolerance,
                                         int threads) {
  std::string text;
  for (const int layer : layers) {
    const std::vector<int64_t> order = match_experts(diff, layer);
    if (order.empty() || std::find(order.begin(), order.end(), -1) != order.end() ||
        !put_experts(b, layer, order))
      return std::nullopt;
    if (text.empty()) text = fmt::format("layer {}: {}", layer, permutation_text(order));
  }
  if (!all_equal(a, b, tolerance, threads)) return std::nullopt;
  if (layers.size() > 1) text += fmt::format(" (and so on in {} layers)", layers.size());
  return SameUpTo{Mistake::expert_permutation, text};
}

}  // namespace

std::optional<SameUpTo> same_up_to(const Adapter& a, const Adapter& b, const WeightDiff& diff,
                                   double tolerance, int threads) {
  std::set<int> layers = differing_layers(diff, tolerance);
  if (layers.empty() && diff.shapes_differ.empty()) return std::nullopt;
  if (diff.only_a.empty() && diff.only_b.empty() && diff.shapes_differ.empty())
    if (auto scale = one_scale(diff, tolerance)) return scale;
  if (layers.count(-1) != 0) return std::nullopt;  // the mistakes below are all of experts
  if (layers.empty())                              // all shapes differ, as with roles exchanged
    for (const auto& [key, pair] : a.experts) layers.insert(key.layer);
  if (layers.empty()) return std::nullopt;

  const Deltas all_a = deltas_of(a), all_b = deltas_of(b);
  const Deltas in_a = of_layers(all_a, layers), in_b = of_layers(all_b, layers);
  const Deltas first_a = of_layers(all_a, {*layers.begin()}),
               first_b = of_layers(all_b, {*layers.begin()});
  for (const MistakeRow& row : mistake_table())
    if (row.undo != nullptr &&
        explains(row, first_a, first_b, b.expert_count, tolerance, threads) &&
        explains(row, in_a, in_b, b.expert_count, tolerance, threads))
      return SameUpTo{row.mistake, std::string(row.text)};
  return permuted_experts(in_a, in_b, diff, layers, tolerance, threads);
}

}  // namespace moelora
