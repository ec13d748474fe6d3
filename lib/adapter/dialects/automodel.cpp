// Grouped experts of NeMo AutoModel, as its state dict holds them: versions before it wrote PEFT's
// names, and models whose state-dict adapter does not convert them (gpt-oss). y = x A B, experts
// first, gate and up one matrix. All else of the file is PEFT's.
//
// Which columns of lora_gate_and_up_B are gate's follows from the model's activation in
// components/moe/experts.py: quick_geglu, gpt-oss' alone, takes every other column; swiglu,
// swigluoai, swiglu_step and geglu take halves, as MoESplitExpertsStateDictMixin joins them.
// relu2 (Nemotron) has no gate. No tensor says which, hence a base model is needed.

#include <fmt/core.h>

#include "lib/adapter/dialect.h"
#include "lib/adapter/foreign/dialect_tools.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/dotted_path.h"
#include "lib/base/error.h"

namespace moelora {
namespace {

bool owns(std::string_view name) { return is_lora_word(last_word(name), 'A', 'B'); }

enum class Part : uint8_t { gate_and_up, down };

struct Factor {
  std::string experts;  // the module
  Part part;
  Side side;
};

Factor taken_apart(const std::string& name) {
  const std::string_view path = without_weight(without_peft_prefix(name));
  const std::string_view word = leaf_of(path);
  const Side side = word.back() == 'A' ? Side::A : Side::B;
  const std::string_view what = word.substr(5, word.size() - 7);  // between lora_ and _A
  if (what != "gate_and_up" && what != "down")
    throw Error(name, fmt::format("is of \"{}\", expected gate_and_up or down", what),
                "AutoModel's grouped experts have these two alone");
  return {std::string(parent_of(path)), what == "down" ? Part::down : Part::gate_and_up, side};
}

// AutoModel's order is that of the base's own fused weights: in turns in gpt-oss alone.
bool are_interleaved(const ModelSpec& spec) {
  return spec.gated && required_gate_up_order(spec) == GateUpOrder::interleaved;
}

// Columns g0, u0, g1, u1, .. as all of gate's, then all of up's.
Tensor halves(const std::string& name, const Tensor& b) {
  const int64_t columns = b.dim(2);
  if (columns % 2 != 0)
    throw Error(name,
                fmt::format("has {} columns, expected an even number: gate's and up's", columns));
  const Tensor pairs = b.reshape({b.dim(0), b.dim(1), columns / 2, 2});
  return pairs.permute({0, 1, 3, 2}).reshape(b.shape());
}

void read(const ForeignAdapter& in, Translation& out) {
  for (const auto& [name, tensor] : in.tensors) {
    if (!owns(name)) {
      put(out, name, name, tensor);
      continue;
    }
    const Factor factor = taken_apart(name);
    if (tensor.rank() != 3)
      throw Error(name, fmt::format("has shape {}, expected three dims, experts first",
                                    to_string(tensor.shape())));
    std::string_view word = "down_proj";
    Tensor columns = tensor;
    if (factor.part == Part::gate_and_up) {
      if (in.spec == nullptr)
        throw needs_base(name,
                         "holds gate and up in halves or in turns, by the family of the model");
      word = in.spec->gated ? "gate_up_proj" : "up_proj";
      if (factor.side == Side::B && are_interleaved(*in.spec)) columns = halves(name, tensor);
    }
    put(out, name, lora_name(fmt::format("{}.{}", factor.experts, word), factor.side),
        columns.transpose(1, 2));
  }
}

}  // namespace

const Dialect dialects::automodel = {
    .id = "automodel",
    .whose = "NeMo AutoModel",
    .names = "experts.lora_gate_and_up_A, lora_gate_and_up_B, lora_down_A, lora_down_B",
    .shapes = "A [E, in, r], B [E, r, out]; gate and up in halves, of gpt-oss in turns",
    .sources =
        "NeMo AutoModel (components/_peft/lora_experts.py, moe/experts.py, "
        "moe/state_dict_mixin.py)",
    .advice = "",
    .owns = owns,
    .read = read,
};

}  // namespace moelora
