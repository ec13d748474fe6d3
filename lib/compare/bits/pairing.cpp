#include "lib/compare/bits/pairing.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>

#include "lib/base/dotted_path.h"
#include "lib/base/error.h"
#include "lib/compare/bits/rounding.h"

namespace moelora::packed {
namespace {

struct Shape2 {
  uint64_t bytes = 0;
  int64_t experts = 0, width = 0;
  bool experts_inside = false;  // experts of one x side by side, so that cutting by them tears rows
  bool x_inside = false;        // x lies along rows of many: cutting by x tears them
};

void add(const Table& table, const Factor* factor, int64_t experts, Shape2& out) {
  if (factor == nullptr || factor->blocks.empty()) return;
  out.experts = std::max(out.experts, experts);
  out.width = std::max(out.width, factor->width);
  out.bytes += box_bytes(table, *factor, {0, experts, 0, factor->width});
  for (const StridedBlock& block : factor->blocks) {
    if (block.count > 1 && block.e_step != 0 && block.e_step < block.x_step)
      out.experts_inside = true;
    if (block.rank > 1 && block.x_step < block.k_step) out.x_inside = true;
  }
}

int64_t width_of(const Factor* factor) {
  return factor == nullptr || factor->blocks.empty() ? 0 : factor->width;
}

constexpr int64_t kLooked = 64;

int64_t rank_of(const ProjectionFactors* unit, int64_t expert) {
  for (const Side side : {Side::A, Side::B})
    if (const StridedBlock* block = block_of(unit, side, expert)) return block->rank;
  return 0;
}

bool same_place(const StridedBlock* a, const StridedBlock* b) {
  return a != nullptr && b != nullptr && a->tensor == b->tensor && a->offset == b->offset;
}

bool shares_a(const ProjectionFactors& a, const ProjectionFactors& b) {
  const auto &left = a.side(Side::A).blocks, &right = b.side(Side::A).blocks;
  return !left.empty() && !right.empty() && same_place(&left.front(), &right.front());
}

// Rank `k` of one expert's factor, as doubles: its first inputs or outputs.
std::vector<double> rank_values(const Table& table, const ProjectionFactors& unit, int64_t expert,
                                Side side, int64_t k) {
  const Factor& factor = unit.side(side);
  BlockReader loader(table);
  const int64_t width = std::min(kLooked, factor.width);
  const Part part = loader.load(&factor, side, {expert, expert + 1, 0, width})[0];
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

// Whether both of its factors are there: where one is missing nothing can be compared.
bool has_pair(const ProjectionFactors* unit, int64_t expert) {
  return rank_of(unit, expert) > 0 && block_of(unit, Side::A, expert) != nullptr &&
         block_of(unit, Side::B, expert) != nullptr;
}

int64_t common_expert(const Pairing& gate, const Pairing& up) {
  for (int64_t e = 0; e < up.packed->experts; ++e)
    if (has_pair(up.source, e) && has_pair(gate.source, e) && has_pair(up.packed, e)) return e;
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
  return std::string(at == std::string::npos ? leaf_of(module)
                                             : std::string_view(module).substr(at));
}

// Dense modules that only one of them has, and that are one below their wrappers.
void join_renamed(std::map<ProjectionKey, Pairing>& found) {
  std::map<std::string, std::vector<ProjectionKey>> alone[2];  // without a packed, without a source
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

// Rows first, first + step, .. of a dense unit's lora_B, with its lora_A.
ProjectionFactors rows_of(const ProjectionFactors& unit, int64_t first, int64_t rows,
                          int64_t step) {
  ProjectionFactors out = unit;
  Factor& b = out.side(Side::B);
  b.width = rows;
  for (StridedBlock& block : b.blocks) {
    block.offset += first * block.x_step;
    block.x_step *= step;
  }
  return out;
}

// A dense module that one adapter has whole and the other in parts. `beside`: what the parts are
// below where it is not what the whole is below.
struct Joint {
  std::string_view whole;
  std::array<std::string_view, 3> parts;  // "" for none
  std::string_view below = {}, beside = {};
  bool in_turn = false;   // g0, u0, g1, u1
  bool same_tail = true;  // of three parts the last two have the same rows
};
constexpr std::array<Joint, 5> kJoints = {{
    // SGLang loads a linear attention's in_proj_qkv so.
    {"in_proj_qkv", {"in_proj_q", "in_proj_k", "in_proj_v"}, {}, {}, false, false},
    {"qkv_proj", {"q_proj", "k_proj", "v_proj"}},
    {"gate_up_proj", {"gate_proj", "up_proj", ""}},
    {"query_key_value", {"q_proj", "k_proj", "v_proj"}, "attention.", "self_attn."},
    {"w13_dn", {"gate_proj", "up_proj", ""}, {}, {}, true},
}};

// Takes the rows of a whole apart where the other adapter has its parts.
class JointRows {
 public:
  JointRows(std::map<ProjectionKey, Pairing>& found, std::list<ProjectionFactors>& slices)
      : found_(found), slices_(slices) {}

  void take_apart() {
    for (const Joint& joint : kJoints) {
      std::vector<ProjectionKey> wholes;
      for (const auto& [key, pairing] : found_)
        if (key.layer < 0 && leaf_of(key.module) == joint.whole &&
            (pairing.packed == nullptr) != (pairing.source == nullptr))
          wholes.push_back(key);
      for (const ProjectionKey& key : wholes) take_apart(key, joint);
    }
  }

 private:
  void take_apart(const ProjectionKey& whole, const Joint& joint) {
    const bool in_source = found_.at(whole).source != nullptr;
    const ProjectionFactors& unit =
        *(in_source ? found_.at(whole).source : found_.at(whole).packed);
    const std::string stem = stem_of_parts(below_wrapper(whole.module), joint);
    std::vector<Pairing*> parts;
    std::vector<int64_t> rows;
    for (std::string_view name : joint.parts) {
      if (name.empty()) continue;
      parts.push_back(alone(stem + std::string(name), in_source));
      const bool there = parts.back() != nullptr;
      // That has the part beside the whole too: which of them it means is not ours to choose.
      if (!there && has(stem + std::string(name))) return;
      rows.push_back(there ? width_of(&of(*parts.back(), !in_source)->side(Side::B)) : -1);
    }
    const int64_t width = unit.side(Side::B).width;
    if (!fill_missing(rows, width, joint.same_tail)) return;
    if (joint.in_turn && rows[0] != rows[1]) return;
    int64_t first = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      slices_.push_back(joint.in_turn ? rows_of(unit, static_cast<int64_t>(i), rows[i], 2)
                                      : rows_of(unit, first, rows[i], 1));
      Pairing& part = parts[i] != nullptr ? *parts[i] : absent(whole, joint.parts[i]);
      of(part, in_source) = &slices_.back();
      first += rows[i];
    }
    found_.erase(whole);
  }

  static std::string stem_of_parts(const std::string& whole, const Joint& joint) {
    std::string stem = whole.substr(0, whole.size() - joint.whole.size());
    if (!joint.below.empty() && stem.ends_with(joint.below))
      stem.replace(stem.size() - joint.below.size(), joint.below.size(), joint.beside);
    return stem;
  }

  // What is left of the whole is that of the parts that are not there. False where no part is, or
  // they do not add up.
  static bool fill_missing(std::vector<int64_t>& rows, int64_t width, bool same_tail) {
    if (rows.size() == 3 && same_tail) rows[1] = rows[2] = std::max(rows[1], rows[2]);
    int64_t missing = 0, known = 0;
    for (const int64_t own : rows) own < 0 ? ++missing : known += own;
    if (missing == static_cast<int64_t>(rows.size()) || known > width) return false;
    if (missing == 0) return known == width;
    if (missing > 1 && !same_tail) return false;
    if ((width - known) % missing != 0) return false;
    for (int64_t& own : rows)
      if (own < 0) own = (width - known) / missing;
    return true;
  }

  // A part that the other adapter lacks, under a name beside the whole.
  Pairing& absent(const ProjectionKey& whole, std::string_view part) {
    return found_[{-1, whole.projection, sibling(whole.module, part)}];
  }

  static const ProjectionFactors*& of(Pairing& pairing, bool source) {
    return source ? pairing.source : pairing.packed;
  }

  // That only the other adapter has; null for none.
  Pairing* alone(const std::string& module, bool in_source) {
    for (auto& [key, pairing] : found_)
      if (key.layer < 0 && of(pairing, in_source) == nullptr && below_wrapper(key.module) == module)
        return &pairing;
    return nullptr;
  }

  bool has(const std::string& module) const {
    return std::any_of(found_.begin(), found_.end(), [&](const auto& entry) {
      return entry.first.layer < 0 && below_wrapper(entry.first.module) == module;
    });
  }

  std::map<ProjectionKey, Pairing>& found_;
  std::list<ProjectionFactors>& slices_;
};

// `other`: the rank of the half that comes first.
Pairing::Ranks ranks(Placement placement, int64_t own, int64_t other, int64_t packed_rank) {
  const int64_t begin = placement == Placement::first        ? 0
                        : placement == Placement::after_gate ? other
                                                             : packed_rank / 2;
  return {begin, begin + own};
}

}  // namespace

std::vector<Window> windows_of(const Pairings& pairings, size_t group, const PassOptions& options) {
  std::vector<Window> out;
  for (const Side side : {Side::A, Side::B}) {
    Shape2 shape;
    for (const size_t i : pairings.groups[group]) {
      const Pairing& p = pairings.all[i];
      add(pairings.packed, p.packed_side(side), p.experts(), shape);
      add(pairings.source, p.source_side(side), p.experts(), shape);
    }
    if (shape.width == 0) continue;
    const bool by_x = shape.experts_inside || shape.experts == 1;
    const uint64_t target = by_x && shape.x_inside ? options.most() : options.window;
    const int64_t extent = by_x ? shape.width : shape.experts;
    const auto wanted =
        static_cast<int64_t>(std::min<uint64_t>(shape.bytes / target, 1U << 20)) + 1;
    const int64_t step = std::max<int64_t>(1, (extent + wanted - 1) / wanted);
    for (int64_t at = 0; at < extent; at += step) {
      const int64_t end = std::min(at + step, extent);
      out.push_back(
          {group, side, by_x ? Box{0, shape.experts, at, end} : Box{at, end, 0, shape.width}});
    }
  }
  return out;
}

Box WindowReader::load(const Pairing& pairing, const Window& window) {
  const Factor *packed = pairing.packed_side(window.side),
               *source = pairing.source_side(window.side);
  Box box = window.box;
  box.x1 = std::min(box.x1, std::max(width_of(packed), width_of(source)));
  box.x0 = std::min(box.x0, box.x1);
  first_ = box.e0;
  if (box.width() == 0) return box;
  packed_parts_ = packed_.load(packed, window.side, box);
  source_parts_ = source_.load(source, window.side, box);
  return box;
}

bool Pairing::same_width(Side side) const {
  const int64_t ours = width_of(packed_side(side)), theirs = width_of(source_side(side));
  return ours == 0 || theirs == 0 || ours == theirs;
}

int64_t Pairing::experts() const {
  return std::max(packed != nullptr ? packed->experts : 0, source != nullptr ? source->experts : 0);
}

double Pairing::scale_ratio(int64_t expert) const {
  if (packed == nullptr || source == nullptr) return 1;
  if (expert >= packed->experts || expert >= source->experts) return 1;
  const double ours = packed->scale(expert).value(), theirs = source->scale(expert).value();
  return ours == theirs ? 1 : theirs / ours;
}

Pairing::Ranks Pairing::own_ranks(int64_t expert, int64_t packed_rank) const {
  return ranks(placement, rank_of(source, expert), rank_of(source_sibling, expert), packed_rank);
}

Pairing::Ranks Pairing::sibling_ranks(int64_t expert, int64_t packed_rank) const {
  return ranks(sibling_placement, rank_of(source_sibling, expert), rank_of(source, expert),
               packed_rank);
}

Pairings pair_up(const Table& packed, const Table& source) {
  std::map<ProjectionKey, Pairing> found;
  for (const auto& [key, unit] : packed.projections) found[key].packed = &unit;
  for (const auto& [key, unit] : source.projections) found[key].source = &unit;
  join_renamed(found);
  const auto has_fused = [](const Table& t) { return !t.gate_up_apart; };
  if (has_fused(packed) != has_fused(source)) {
    const auto apart = [](const auto& entry) {
      return entry.first.layer >= 0 && entry.first.projection != Projection::down &&
             entry.first.projection != Projection::gate_up;
    };
    const Table& other = has_fused(packed) ? source : packed;
    if (std::any_of(other.projections.begin(), other.projections.end(), apart))
      throw Error("gate_up_proj",
                  "whether gate and up rows are halves or interleaved in the stacked parameter "
                  "depends on the model family, and no base model is known",
                  {"name it with ", Option::base});
  }
  Pairings out{packed, source, {}, {}, {}};
  JointRows(found, out.slices).take_apart();
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
  for (const std::vector<size_t>& group : out.groups)
    if (group.size() == 2) place_halves(packed, source, out.all[group[0]], out.all[group[1]]);
  return out;
}

}  // namespace moelora::packed
