#include "lib/compare/bits/fault.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lib/base/utf8.h"

namespace moelora::packed {
namespace {

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
std::string joined(const std::vector<T>& list, size_t most, F&& text) {
  std::string out;
  for (size_t i = 0; i < std::min(list.size(), most); ++i)
    out += (i == 0 ? "" : ", ") + std::string(text(list[i]));
  if (list.size() > most) out += fmt::format(" and {} more", list.size() - most);
  return out;
}

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

const StridedBlock* block_of(const Factor* factor, int64_t expert) {
  return factor != nullptr ? factor->block_of(expert) : nullptr;
}

}  // namespace

std::string Fault::text() const {
  std::string out(row_of(mistake).text);
  if (!layers.empty())
    out += fmt::format("; layers {}, experts {}, {}", ranges(layers), ranges(experts),
                       joined(projections, 4, projection_name));
  if (!modules.empty())
    out += "; " + joined(modules, 3, [](const std::string& m) { return printable(m); });
  if (!sides.empty())
    out += ": " + joined(sides, 2, [](Side s) { return fmt::format("lora_{}", letter(s)); });
  out += fmt::format(" ({} pair{}; first {}", pairs, pairs == 1 ? "" : "s", first);
  if (!detail.empty()) out += ": " + detail;
  if (std::isinf(delta_error))
    out += "; the delta is off beyond measure";
  else if (delta_error > 0)
    out += fmt::format("; the delta is off by {:.2g} of its norm", delta_error);
  return out + ")";
}

void FaultList::add(const Pairing& pairing, int64_t expert, const PairFault& one,
                    const std::function<std::optional<double>()>& measure) {
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
    const StridedBlock* packed = block_of(pairing.packed_side(side), expert);
    const StridedBlock* source = block_of(pairing.source_side(side), expert);
    if (packed != nullptr)
      tensors_[one.mistake].insert(packed_.tensors[packed->tensor].name);
    else if (source != nullptr)
      tensors_[one.mistake].insert(source_.tensors[source->tensor].name);
  }
}

std::vector<Fault> FaultList::faults() const {
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

}  // namespace moelora::packed
