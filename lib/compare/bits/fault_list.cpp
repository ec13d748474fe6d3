#include "lib/compare/bits/fault_list.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/base/utf8.h"

namespace moelora::packed {
namespace {

constexpr int64_t kMeasured = 4;  // pairs of a fault

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

const Slab* slab_of(const Factor* factor, int64_t expert) {
  return factor != nullptr ? factor->slab_of(expert) : nullptr;
}

}  // namespace

void FaultList::add(const Pairing& pairing, int64_t expert, const PairFault& one,
                    const std::function<std::optional<double>()>& measure) {
  Fault& fault = faults_[one.kind];
  fault.kind = one.kind;
  if (fault.pairs++ == 0) {
    fault.first = place(pairing, expert, one.sides);
    fault.detail = one.detail;
  }
  add_place(pairing, expert, one, fault);
  add_tensors(pairing, expert, one);
  if (fault.pairs > kMeasured) return;
  fault.delta_error = std::max(fault.delta_error, measure().value_or(0));
}

void FaultList::add_place(const Pairing& pairing, int64_t expert, const PairFault& one,
                          Fault& fault) {
  for (const Side side : one.sides) add_sorted(fault.sides, side);
  if (pairing.key.layer < 0) return add_sorted(fault.modules, pairing.key.module);
  add_sorted(fault.layers, pairing.key.layer);
  add_sorted(fault.projections, pairing.key.projection);
  add_sorted(fault.experts, expert);
}

// Of the packed adapter; what it has not, of the source.
void FaultList::add_tensors(const Pairing& pairing, int64_t expert, const PairFault& one) {
  for (const Side side : {Side::A, Side::B}) {
    if (one.sides.size() == 1 && one.sides[0] != side) continue;
    const Slab* packed = slab_of(pairing.packed_side(side), expert);
    const Slab* source = slab_of(pairing.source_side(side), expert);
    if (packed != nullptr)
      tensors_[one.kind].insert(packed_.tensors[packed->tensor].name);
    else if (source != nullptr)
      tensors_[one.kind].insert(source_.tensors[source->tensor].name);
  }
}

std::vector<Fault> FaultList::faults() const {
  std::vector<Fault> out;
  for (const auto& [kind, fault] : faults_) {
    out.push_back(fault);
    if (const auto names = tensors_.find(kind); names != tensors_.end())
      out.back().tensors.assign(names->second.begin(), names->second.end());
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const Fault& a, const Fault& b) { return a.pairs > b.pairs; });
  return out;
}

}  // namespace moelora::packed
