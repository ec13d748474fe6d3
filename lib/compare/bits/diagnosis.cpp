#include "lib/compare/bits/diagnosis.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "lib/base/utf8.h"
#include "lib/compare/bits/explain.h"
#include "lib/compare/bits/hypotheses.h"
#include "lib/compare/bits/products.h"
#include "lib/compare/bits/scales.h"

namespace moelora::packed {
namespace {

// ---- words ----

// "0-3, 7, 9-11".
template <class T>
std::string ranges(const std::vector<T>& sorted) {
  std::string out;
  for (size_t i = 0; i < sorted.size();) {
    size_t end = i + 1;
    while (end < sorted.size() && sorted[end] == sorted[end - 1] + 1) ++end;
    if (!out.empty()) out += ", ";
    out += end - i > 2 ? fmt::format("{}-{}", sorted[i], sorted[end - 1])
                       : fmt::format("{}", sorted[i]);
    i = end - i > 2 ? end : i + 1;
  }
  return out;
}

template <class T, class F>
std::string joined(const std::vector<T>& list, F&& text) {
  std::string out;
  for (const T& one : list) out += (out.empty() ? "" : ", ") + std::string(text(one));
  return out;
}

// ---- pairs with the same fault ----

// What is wrong with one pair.
struct PairFault {
  Mistake mistake;
  std::vector<Side> sides;
  std::string detail = {};
};

template <class T>
void add_sorted(std::vector<T>& list, const T& value) {
  const auto at = std::lower_bound(list.begin(), list.end(), value);
  if (at == list.end() || *at != value) list.insert(at, value);
}

std::string place(const Pairing& p, int64_t expert, const std::vector<Side>& sides) {
  std::string out = p.key.layer < 0 ? printable(p.key.module)
                                    : fmt::format("layer {}, expert {}, {}", p.key.layer, expert,
                                                  projection_name(p.key.projection));
  if (sides.size() == 1) out += fmt::format(" lora_{}", letter(sides[0]));
  return out;
}

class FaultList {
 public:
  explicit FaultList(const Pairings& pairings) : pairings_(pairings) {}

  // `measure` gives the error of the pair's delta; it is asked for the first pairs of a fault only.
  template <class Measure>
  void add(const Pairing& pairing, int64_t expert, const PairFault& one, Measure&& measure) {
    Fault& fault = faults_[one.mistake];
    fault.mistake = one.mistake;
    if (fault.pairs++ == 0) {
      fault.first = place(pairing, expert, one.sides);
      fault.detail = one.detail;
    }
    add_place(pairing, expert, one, fault);
    add_tensors(pairing, expert, one);
    if (fault.pairs > kMeasured) return;
    fault.delta_error = std::max(fault.delta_error, measure().value_or(0));
  }

  // That of the most pairs first.
  std::vector<Fault> faults() const {
    std::vector<Fault> out;
    for (const auto& [mistake, fault] : faults_) {
      out.push_back(fault);
      if (const auto names = tensors_.find(mistake); names != tensors_.end())
        out.back().tensors.assign(names->second.begin(), names->second.end());
    }
    std::stable_sort(out.begin(), out.end(),
                     [](const Fault& a, const Fault& b) { return a.pairs > b.pairs; });
    return out;
  }

 private:
  static constexpr int64_t kMeasured = 4;  // pairs of a fault

  static void add_place(const Pairing& pairing, int64_t expert, const PairFault& one,
                        Fault& fault) {
    for (const Side side : one.sides) add_sorted(fault.sides, side);
    if (pairing.key.layer < 0) return add_sorted(fault.modules, pairing.key.module);
    add_sorted(fault.layers, pairing.key.layer);
    add_sorted(fault.projections, pairing.key.projection);
    add_sorted(fault.experts, expert);
  }

  // Of the packed adapter; for what it lacks, of the source.
  void add_tensors(const Pairing& pairing, int64_t expert, const PairFault& one) {
    for (const Side side : {Side::A, Side::B}) {
      if (one.sides.size() == 1 && one.sides[0] != side) continue;
      if (const StridedBlock* packed = block_of(pairing.packed, side, expert))
        tensors_[one.mistake].insert(pairings_.packed.tensors[packed->tensor].name);
      else if (const StridedBlock* source = block_of(pairing.source, side, expert))
        tensors_[one.mistake].insert(pairings_.source.tensors[source->tensor].name);
    }
  }

  const Pairings& pairings_;
  std::map<Mistake, Fault> faults_;
  std::map<Mistake, std::set<std::string>> tensors_;
};

// ---- what is wrong with each pair ----

constexpr size_t kSamples = 6;  // experts looked at of those that differ alike

std::vector<PairFault> merged(std::vector<PairFault> faults) {
  if (faults.size() == 2 && faults[0].mistake == faults[1].mistake) {
    faults[0].sides = {Side::A, Side::B};
    faults.pop_back();
  }
  return faults;
}

bool is_outer(Projection p, Side side) { return (p == Projection::down) == (side == Side::B); }

class Diagnosis {
 public:
  Diagnosis(const Pairings& pairings, const BitPass& bits, double rounding)
      : pairings_(pairings),
        bits_(bits),
        rounding_(rounding),
        reader_(pairings),
        explainer_(reader_, bits),
        list_(pairings) {}

  std::vector<Fault> run(const std::set<PairId>& different) {
    std::map<size_t, std::vector<int64_t>> by_pairing;
    for (const PairId& pair : different) by_pairing[pair.pairing].push_back(pair.expert);
    for (const auto& [pairing, experts] : by_pairing) look_at(pairing, experts);
    return list_.faults();
  }

 private:
  bool differs(size_t pairing, int64_t expert, Side side) const {
    return (bits_.of(pairing, expert, side) & kSame) == 0;
  }

  // ---- one projection of a layer ----

  void look_at(size_t pairing, const std::vector<int64_t>& experts) {
    std::vector<int64_t> rest;
    const auto placed = look_for_experts(pairing, experts);
    for (const int64_t e : experts)
      if (!placed.count(e)) rest.push_back(e);
    // Those that differ alike are looked at by sample; the others are taken to be as the last one.
    std::map<std::pair<bool, bool>, std::vector<int64_t>> alike;
    for (const int64_t e : rest)
      alike[{differs(pairing, e, Side::A), differs(pairing, e, Side::B)}].push_back(e);
    for (const auto& entry : alike) {
      std::vector<PairFault> last;
      const std::vector<int64_t>& group = entry.second;
      for (size_t i = 0; i < group.size(); ++i) {
        const bool sample = group.size() <= 2 * kSamples || i < kSamples;
        if (sample) last = explain(pairing, group[i]);
        add(pairing, group[i], last);
      }
    }
  }

  // Experts that hold other experts' factors, whole maps at a time. Returns those it explains.
  std::set<int64_t> look_for_experts(size_t pairing, const std::vector<int64_t>& experts) {
    std::set<int64_t> out;
    std::map<int64_t, std::vector<PairFault>> faults;
    std::map<int64_t, int> unexplained;
    for (const Side side : {Side::A, Side::B}) {
      std::vector<int64_t> wrong;
      for (const int64_t e : experts)
        if (differs(pairing, e, side)) wrong.push_back(e);
      for (const int64_t e : wrong) ++unexplained[e];
      for (auto& [e, fault] : experts_of_side(pairing, side, wrong)) {
        faults[e].push_back(fault);
        --unexplained[e];
      }
    }
    for (auto& [e, list] : faults) {
      if (unexplained[e] != 0) continue;
      add(pairing, e, merged(std::move(list)));
      out.insert(e);
    }
    return out;
  }

  std::map<int64_t, PairFault> experts_of_side(size_t pairing, Side side,
                                               const std::vector<int64_t>& wrong) {
    std::map<int64_t, PairFault> out;
    if (wrong.empty()) return out;
    const Pairing& p = pairings_.all[pairing];
    const auto held = explainer_.holders(pairing, side, wrong);
    std::vector<ExpertAt> placed;
    for (const auto& [at, holds] : held) placed.push_back({at, holds});
    if (!placed.empty() && sure(p, pairing, side, placed)) {
      const bool outer = is_outer(p.key.projection, side);
      const Mistake mistake = order_of(placed, p.experts(), outer);
      for (const ExpertAt& one : placed)
        out[one.at] = {
            mistake, {side}, fmt::format("expert {} holds expert {}", one.at, one.holds)};
    } else if (held.empty() && wrong.size() > 2 && explainer_.all_alike(pairing, side, wrong) &&
               p.key.layer >= 0 && p.packed != nullptr && p.source != nullptr &&
               explainer_.find(pairing, wrong.front(), side).mistake == Mistake::unknown) {
      for (const int64_t e : wrong) out[e] = {Mistake::averaged, {side}};
    }
    return out;
  }

  // Whole factors, not only their beginnings.
  bool sure(const Pairing& p, size_t pairing, Side side, const std::vector<ExpertAt>& placed) {
    for (const ExpertAt& one : {placed.front(), placed.back()})
      if (!explainer_.holds(pairing, one.at, side, p.key, one.holds)) return false;
    return true;
  }

  // ---- one pair ----

  std::vector<PairFault> explain(size_t pairing, int64_t expert) {
    const Explanation a = explainer_.find(pairing, expert, Side::A);
    const Explanation b = explainer_.find(pairing, expert, Side::B);
    if (auto fault = by_scale(pairing, expert, a, b)) return {*fault};
    if (auto fault = by_halves(pairing, expert, a, b)) return {*fault};
    std::vector<PairFault> out;
    for (const auto& [side, explanation] : {std::pair(Side::A, a), std::pair(Side::B, b)}) {
      if (explanation.kind == Explanation::Kind::own) continue;
      Mistake mistake = explanation.mistake;
      if (explanation.kind == Explanation::Kind::sibling)
        mistake = side == Side::A ? Mistake::gate_up_a_exchanged : Mistake::gate_up_b_exchanged;
      out.push_back({mistake, {side}, explanation.detail});
    }
    return by_rounding(pairing, expert, merged(std::move(out)));
  }

  std::optional<PairFault> by_scale(size_t pairing, int64_t expert, const Explanation& a,
                                    const Explanation& b) const {
    const auto constant = [](const Explanation& o) {
      return o.kind == Explanation::Kind::own || o.kind == Explanation::Kind::scaled;
    };
    const Pairing& p = pairings_.all[pairing];
    if (p.packed == nullptr || p.source == nullptr || !constant(a) || !constant(b))
      return std::nullopt;
    const double ratio = a.factor * b.factor / p.scale_ratio(expert);
    if (std::fabs(ratio - 1) <= rounding_) return PairFault{Mistake::rounding, {}};
    const Scale &right = p.source->scale(expert), &config = p.packed->scale(expert);
    const std::string detail =
        fmt::format("{:.6g} became {:.6g}", right.value(), right.value() * ratio);
    if (a.factor * b.factor == 1 && config.rslora != right.rslora && config.alpha == right.alpha)
      return PairFault{Mistake::scale_rslora, {}, detail};
    const StridedBlock* block = block_of(p.packed, Side::A, expert);
    const int64_t packed_rank = block != nullptr ? block->rank : right.rank;
    return PairFault{scale_fault(ratio, right.value(), right.rank, packed_rank), {}, detail};
  }

  // Gate's factors where up's belong, and the reverse.
  std::optional<PairFault> by_halves(size_t pairing, int64_t expert, const Explanation& a,
                                     const Explanation& b) const {
    using Kind = Explanation::Kind;
    const bool a_moved = a.kind == Kind::sibling, b_moved = b.kind == Kind::sibling;
    if (a_moved && b_moved) return PairFault{Mistake::gate_up_exchanged, {Side::A, Side::B}};
    if (b_moved && a.kind == Kind::own) return PairFault{Mistake::gate_up_b_exchanged, {Side::B}};
    if (!a_moved || b.kind != Kind::own) return std::nullopt;
    const ProjectionKey& key = pairings_.all[pairing].key;
    const auto gate = reader_.find({key.layer, Projection::gate, {}});
    const bool lost = key.projection == Projection::up && gate && !differs(*gate, expert, Side::A);
    return PairFault{lost ? Mistake::up_uses_gate_a : Mistake::gate_up_a_exchanged, {Side::A}};
  }

  // What nothing names but is small is rounding.
  std::vector<PairFault> by_rounding(size_t pairing, int64_t expert,
                                     std::vector<PairFault> faults) {
    const bool unnamed = std::all_of(faults.begin(), faults.end(), [](const PairFault& f) {
      return f.mistake == Mistake::unknown;
    });
    if (!unnamed) return faults;
    const auto error = measure(pairing, expert);
    if (error && *error <= rounding_) return {{Mistake::rounding, {}}};
    if (faults.empty()) faults.push_back({Mistake::unknown, {}});
    return faults;
  }

  std::optional<double> measure(size_t pairing, int64_t expert) {
    const Pairing& p = pairings_.all[pairing];
    const auto scale = [&](const ProjectionFactors* unit) {
      return unit == nullptr ? 1 : unit->scale(expert).value();
    };
    return delta_error({reader_.packed(pairing, expert, Side::A),
                        reader_.packed(pairing, expert, Side::B), scale(p.packed)},
                       {reader_.source(pairing, expert, Side::A),
                        reader_.source(pairing, expert, Side::B), scale(p.source)});
  }

  void add(size_t pairing, int64_t expert, const std::vector<PairFault>& faults) {
    for (const PairFault& one : faults)
      list_.add(pairings_.all[pairing], expert, one, [&] { return measure(pairing, expert); });
  }

  const Pairings& pairings_;
  const BitPass& bits_;
  const double rounding_;
  FactorReader reader_;
  Explainer explainer_;
  FaultList list_;
};

}  // namespace

std::string Fault::text() const {
  std::string out(row_of(mistake).text);
  if (!layers.empty())
    out += fmt::format("; layers {}, experts {}, {}", ranges(layers), ranges(experts),
                       joined(projections, projection_name));
  if (!modules.empty()) out += "; " + list_some(modules, 3);
  if (!sides.empty())
    out += ": " + joined(sides, [](Side s) { return fmt::format("lora_{}", letter(s)); });
  out += fmt::format(" ({} pair{}; first {}", pairs, pairs == 1 ? "" : "s", first);
  if (!detail.empty()) out += ": " + detail;
  if (std::isinf(delta_error))
    out += "; the delta is off beyond measure";
  else if (delta_error > 0)
    out += fmt::format("; the delta is off by {:.2g} of its norm", delta_error);
  return out + ")";
}

std::vector<Fault> diagnose(const Pairings& pairings, const BitPass& bits,
                            const std::set<PairId>& different, double rounding) {
  return Diagnosis(pairings, bits, rounding).run(different);
}

}  // namespace moelora::packed
