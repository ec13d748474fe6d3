#include "lib/compare/bits/fault.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "lib/base/utf8.h"

namespace moelora::packed {
namespace {

struct Row {
  FaultKind kind;
  std::string_view name, text;
};

// In the order of the enumeration.
constexpr std::array kRows = {
    Row{FaultKind::gate_up_halves, "gate-up-halves",
        "the gate and up halves of lora_B are exchanged"},
    Row{FaultKind::gate_up_a_blocks, "gate-up-a-blocks", "gate's and up's lora_A are exchanged"},
    Row{FaultKind::gate_up_names, "gate-up-names",
        "gate and up are exchanged, A and B alike: w1 and w3 are named the wrong way round"},
    Row{FaultKind::up_uses_gate_a, "up-uses-gate-a", "up has gate's lora_A, its own is lost"},
    Row{FaultKind::interleaving, "interleaving",
        "gate and up rows are interleaved where they must not be, or were taken apart twice"},
    Row{FaultKind::tp_slice, "tp-slice",
        "rows were cut from the joint gate-up axis rather than from each half"},
    Row{FaultKind::experts_rotated, "experts-rotated", "the experts are rotated"},
    Row{FaultKind::experts_as_strings, "experts-as-strings",
        "the experts are in the order of their numbers as text: 0, 1, 10, 11, .. 2"},
    Row{FaultKind::experts_exchanged, "experts-exchanged", "two experts are exchanged"},
    Row{FaultKind::experts_permuted, "experts-permuted", "the experts are in another order"},
    Row{FaultKind::scale_missing, "scale-missing", "the scale alpha/r is lost"},
    Row{FaultKind::scale_twice, "scale-twice", "the scale alpha/r is applied twice"},
    Row{FaultKind::scale_rslora, "scale-rslora",
        "alpha/r and alpha/sqrt(r) (rsLoRA) are mistaken for each other"},
    Row{FaultKind::scale_of_padded_rank, "scale-of-padded-rank",
        "the scale is alpha over the padded rank rather than the adapter's"},
    Row{FaultKind::scale_other, "scale-other", "the delta is scaled by a constant"},
    Row{FaultKind::a_reshaped, "a-reshaped", "lora_A was reshaped where it must be transposed"},
    Row{FaultKind::b_reshaped, "b-reshaped", "lora_B was reshaped where it must be transposed"},
    Row{FaultKind::b_order, "b-order",
        "the columns of the stacked lora_B were read in the other order (k*E+e, e*r+k)"},
    Row{FaultKind::padding, "padding", "ranks that hold nothing of the source's are not zero"},
    Row{FaultKind::rank_slot, "rank-slot",
        "a half begins at another rank than its other side: the second slice lies at r rather than "
        "at the padded rank"},
    Row{FaultKind::one_for_all, "one-for-all",
        "every expert has one expert's factor: per-expert factors were taken for a shared outer "
        "one"},
    Row{FaultKind::wrong_side_shared, "wrong-side-shared",
        "every expert has one expert's factor on the inner side: the wrong side is shared"},
    Row{FaultKind::averaged, "averaged",
        "every expert has one matrix that is no expert's of the source: averaged?"},
    Row{FaultKind::other_projection, "other-projection",
        "another projection's factor: w2 taken for w1 or w3"},
    Row{FaultKind::sides_exchanged, "sides-exchanged",
        "lora_A and lora_B are exchanged and transposed"},
    Row{FaultKind::dtype_bits, "dtype-bits", "bits of one type were taken for another's"},
    Row{FaultKind::truncated, "truncated", "values were cast by cutting bits off, not by rounding"},
    Row{FaultKind::overflow, "overflow", "finite values became infinite"},
    Row{FaultKind::flushed, "flushed", "subnormal values became zero"},
    Row{FaultKind::missing, "missing", "factors are not there"},
    Row{FaultKind::left_zero, "left-zero", "factors are zero"},
    Row{FaultKind::not_in_source, "not-in-source", "factors that the source has not"},
    Row{FaultKind::other_layer, "other-layer", "another layer's factors"},
    Row{FaultKind::shifted_data, "shifted-data", "the right values, some elements off"},
    Row{FaultKind::rounding, "rounding", "values differ by no more than rounding explains"},
    Row{FaultKind::few_elements, "few-elements", "single elements differ"},
    Row{FaultKind::width, "width", "another number of inputs or outputs"},
    Row{FaultKind::rank, "rank", "another rank"},
    Row{FaultKind::unknown, "unknown", "values that nothing in the source explains"},
};

const Row& row_of(FaultKind kind) { return kRows[static_cast<size_t>(kind)]; }

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

}  // namespace

std::string_view fault_name(FaultKind kind) { return row_of(kind).name; }
std::string_view describe(FaultKind kind) { return row_of(kind).text; }

std::string Fault::text() const {
  std::string out(describe(kind));
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

}  // namespace moelora::packed
