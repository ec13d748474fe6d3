#include "lib/check/equal_experts.h"

#include <algorithm>
#include <map>
#include <set>

#include "lib/io/evaluate.h"

namespace moelora {
namespace {

const Factor& factor_of(const ExpertPair& pair, Side side) {
  return side == Side::A ? pair.a : pair.b;
}

std::vector<std::string> digests(const std::vector<const Tensor*>& tensors) {
  return evaluate_tensors(tensors, {}, {}, nullptr);
}

struct Copies {
  int64_t experts = 0, distinct = 0;
  uint64_t spare_bytes = 0;
};

// How many different factors the experts of a layer have. One of zeros is an untrained expert
// and counts as different.
Copies count_copies(const Factor& factor) {
  std::vector<const Tensor*> parts;
  for (const Tensor& part : factor.parts)
    if (part.rank() != 0) parts.push_back(&part);
  if (factor.shared || parts.size() < 2) return {};
  std::vector<const Tensor*> all = parts;
  const Tensor zero = Tensor::zeros(parts.front()->dtype(), parts.front()->shape());
  all.push_back(&zero);
  const std::vector<std::string> of = digests(all);
  Copies out;
  std::set<std::string> seen{of.back()};
  for (size_t i = 0; i < parts.size(); ++i) {
    ++out.experts;
    if (seen.insert(of[i]).second || of[i] == of.back())
      ++out.distinct;
    else
      out.spare_bytes += parts[i]->bytes();
  }
  return out;
}

struct FactorPlace {
  Projection projection;
  Side side;
  friend auto operator<=>(const FactorPlace&, const FactorPlace&) = default;
};

std::set<FactorPlace> equal_in_first_layer(const Adapter& adapter) {
  std::set<FactorPlace> out;
  const int first = adapter.experts.begin()->first.layer;
  for (const auto& [key, pair] : adapter.experts)
    for (Side side : {Side::A, Side::B}) {
      if (key.layer != first) break;
      const Copies copies = count_copies(factor_of(pair, side));
      if (copies.distinct < copies.experts) out.insert({key.projection, side});
    }
  return out;
}

}  // namespace

bool EqualExperts::is_shared_outer() const {
  return !sides.empty() && std::all_of(sides.begin(), sides.end(), [](const Side& s) {
    const bool outer =
        s.projection == Projection::down ? s.side == moelora::Side::B : s.side == moelora::Side::A;
    return outer && s.distinct == 1;
  });
}

std::optional<EqualExperts> find_equal_experts(const Adapter& adapter) {
  if (adapter.experts.empty() || adapter.expert_count < 2) return std::nullopt;
  std::map<FactorPlace, Copies> found;
  for (const FactorPlace& place : equal_in_first_layer(adapter)) found[place];
  for (const auto& [key, pair] : adapter.experts)
    for (Side side : {Side::A, Side::B}) {
      const auto at = found.find({key.projection, side});
      if (at == found.end()) continue;
      const Copies here = count_copies(factor_of(pair, side));
      at->second.distinct = std::max(at->second.distinct, here.distinct);
      at->second.experts = std::max(at->second.experts, here.experts);
      at->second.spare_bytes += here.spare_bytes;
    }
  EqualExperts out;
  for (const auto& [place, copies] : found) {
    if (copies.distinct >= copies.experts) continue;
    out.sides.push_back({place.projection, place.side, copies.distinct});
    out.spare_bytes += copies.spare_bytes;
  }
  if (out.sides.empty()) return std::nullopt;
  return out;
}

}  // namespace moelora
