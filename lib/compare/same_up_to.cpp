#include "lib/compare/same_up_to.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "lib/compare/mistakes.h"

namespace moelora {
namespace {

bool differs(const Distance& d, double tolerance) { return !(d.relative() <= tolerance); }

// The layers in which something differs; -1 for what is no routed expert.
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
// Returns for each expert of A the one of B, empty where the norms do not tell.
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
