#include "lib/compare/bits/pairing.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "lib/base/error.h"
#include "lib/compare/bits/rounding.h"

namespace moelora::packed {
namespace {

constexpr int64_t kLooked = 64;

int64_t rank_of(const Unit* unit, int64_t expert) {
  for (const Side side : {Side::A, Side::B})
    if (const Slab* slab = unit != nullptr ? unit->side(side).slab_of(expert) : nullptr)
      return slab->rank;
  return 0;
}

bool same_place(const Slab* a, const Slab* b) {
  return a != nullptr && b != nullptr && a->tensor == b->tensor && a->offset == b->offset;
}

bool shares_a(const Unit& a, const Unit& b) {
  const auto &left = a.side(Side::A).slabs, &right = b.side(Side::A).slabs;
  return !left.empty() && !right.empty() && same_place(&left.front(), &right.front());
}

// Rank `k` of one expert's factor, as doubles: its first inputs or outputs.
std::vector<double> rank_values(const Table& table, const Unit& unit, int64_t expert, Side side,
                                int64_t k) {
  const Factor& factor = unit.side(side);
  Loader loader(table);
  const int64_t width = std::min(kLooked, factor.width);
  const Part part = loader.load(factor, side, {expert, expert + 1, 0, width})[0];
  std::vector<double> out;
  for (int64_t x = 0; x < width; ++x) {
    const int64_t at = side == Side::A ? k * width + x : x * part.rank + k;
    out.push_back(value_of(part.dtype, element(part.data, part.bytes(), at)));
  }
  return out;
}

// They agree as well as a cast to 16 bits lets them.
bool alike(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return a.size() == b.size() && difference <= 1e-3 * norm;
}

bool is_zero(const std::vector<double>& values) {
  return std::all_of(values.begin(), values.end(), [](double v) { return v == 0; });
}

int64_t common_expert(const Pairing& gate, const Pairing& up) {
  for (int64_t e = 0; e < up.packed->experts; ++e)
    if (rank_of(up.source, e) > 0 && rank_of(gate.source, e) > 0 && rank_of(up.packed, e) > 0)
      return e;
  return -1;
}

// Gate and up share one packed A: finds where up's ranks are, by both of its sides, so that a fault
// of one does not hide where the other is.
void place_halves(const Table& packed, const Table& source, Pairing& gate, Pairing& up) {
  if (gate.packed == nullptr || up.packed == nullptr || !shares_a(*gate.packed, *up.packed)) return;
  gate.shares_packed_a = up.shares_packed_a = true;
  gate.source_sibling = up.source;
  up.source_sibling = gate.source;
  const int64_t e = gate.source == nullptr || up.source == nullptr ? -1 : common_expert(gate, up);
  if (e < 0 || gate.source->side(Side::A).width != up.packed->side(Side::A).width) return;
  const int64_t first = rank_of(gate.source, e), r = rank_of(up.packed, e);
  if (r < first + rank_of(up.source, e)) return;
  const std::vector<double> row = rank_values(source, *up.source, e, Side::A, 0);
  const auto score = [&](int64_t k) {
    const bool a = alike(rank_values(packed, *up.packed, e, Side::A, k), row);
    const bool b = !is_zero(rank_values(packed, *up.packed, e, Side::B, k));
    return (a ? 1 : 0) +
           (b && (k == 0 || is_zero(rank_values(packed, *up.packed, e, Side::B, 0))) ? 1 : 0);
  };
  const int at_first = score(0), after = score(first), middle = first == r / 2 ? 0 : score(r / 2);
  if (at_first > std::max(after, middle)) return;
  up.placement = middle > after ? Placement::second_half : Placement::after_gate;
  gate.sibling_placement = up.placement;
}

// "layers.3.self_attn.q_proj" of "model.language_model.layers.3.self_attn.q_proj": what a model
// keeps when it is wrapped into another.
std::string below_wrapper(const std::string& module) {
  const size_t at = module.find("layers.");
  return at == std::string::npos ? module.substr(module.rfind('.') + 1) : module.substr(at);
}

// Dense modules that only one of them has, and that are one below their wrappers.
void join_renamed(std::map<UnitKey, Pairing>& found) {
  std::map<std::string, std::vector<UnitKey>> alone[2];  // without a packed, without a source
  for (const auto& [key, pairing] : found)
    if (key.layer < 0 && (pairing.packed == nullptr || pairing.source == nullptr))
      alone[pairing.packed == nullptr ? 0 : 1][below_wrapper(key.module)].push_back(key);
  for (const auto& [name, sources] : alone[0]) {
    const auto packed = alone[1].find(name);
    if (packed == alone[1].end() || sources.size() != 1 || packed->second.size() != 1) continue;
    found[packed->second[0]].source = found[sources[0]].source;
    found.erase(sources[0]);
  }
}

// `other`: the rank of the half that comes first.
Pairing::Ranks ranks(Placement placement, int64_t own, int64_t other, int64_t packed_rank) {
  const int64_t begin = placement == Placement::first        ? 0
                        : placement == Placement::after_gate ? other
                                                             : packed_rank / 2;
  return {begin, begin + own};
}

void place_all(const Table& packed, const Table& source, Pairings& pairings) {
  for (const std::vector<size_t>& group : pairings.groups)
    if (group.size() == 2)
      place_halves(packed, source, pairings.all[group[0]], pairings.all[group[1]]);
}

}  // namespace

Pairing::Ranks Pairing::own_ranks(int64_t expert, int64_t packed_rank) const {
  return ranks(placement, rank_of(source, expert), rank_of(source_sibling, expert), packed_rank);
}

Pairing::Ranks Pairing::sibling_ranks(int64_t expert, int64_t packed_rank) const {
  return ranks(sibling_placement, rank_of(source_sibling, expert), rank_of(source, expert),
               packed_rank);
}

Pairings pair_up(const Table& packed, const Table& source) {
  std::map<UnitKey, Pairing> found;
  for (const auto& [key, unit] : packed.units) found[key].packed = &unit;
  for (const auto& [key, unit] : source.units) found[key].source = &unit;
  join_renamed(found);
  const auto has_fused = [](const Table& t) { return !t.gate_up_apart; };
  if (has_fused(packed) != has_fused(source)) {
    const auto apart = [](const auto& entry) {
      return entry.first.layer >= 0 && entry.first.projection != Projection::down &&
             entry.first.projection != Projection::gate_up;
    };
    const Table& other = has_fused(packed) ? source : packed;
    if (std::any_of(other.units.begin(), other.units.end(), apart))
      throw Error("gate_up_proj",
                  "whether gate and up rows are halves or interleaved in the stacked parameter "
                  "depends on the model family, and no base model is known",
                  {"name it with ", Option::base});
  }
  Pairings out;
  for (auto& [key, pairing] : found) {
    pairing.key = key;
    const bool second = key.layer >= 0 && key.projection == Projection::up && !out.all.empty() &&
                        out.all.back().key.layer == key.layer &&
                        out.all.back().key.projection == Projection::gate;
    if (second)
      out.groups.back().push_back(out.all.size());
    else
      out.groups.push_back({out.all.size()});
    out.all.push_back(pairing);
  }
  place_all(packed, source, out);
  return out;
}

}  // namespace moelora::packed
