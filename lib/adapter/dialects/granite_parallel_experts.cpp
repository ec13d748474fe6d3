// PEFT's target_parameters on GraniteMoE as transformers before 5.13 has it: the batched weights
// stand in two modules of their own, block_sparse_moe.input_linear (gate and up) and output_linear
// (down), each of which holds one pair, where later versions nest both in "experts". The pairs are
// the same, which is why they only get the later names; roles and the order of lora_B are the
// layout's to find. PEFT on those versions reads the file, later versions and servers do not.
// JetMoe's stand so below "mlp" in every version (schemas/models/jetmoe.json).

#include <fmt/core.h>

#include <optional>
#include <set>

#include "lib/adapter/dialect.h"
#include "lib/adapter/foreign/dialect_tools.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/dotted_path.h"

namespace moelora {
namespace {

constexpr std::string_view kInput = "input_linear", kOutput = "output_linear";

struct Factor {
  std::string_view parent;  // "model.layers.3.block_sparse_moe"
  bool is_input;
  Side side;
};

std::optional<Factor> factor_of(std::string_view name) {
  const TensorNameView parsed = view_tensor_name(name);
  if (parsed.part != TensorPart::lora_a && parsed.part != TensorPart::lora_b) return std::nullopt;
  const std::string_view parent = parent_of(parsed.module), leaf = leaf_of(parsed.module);
  const bool known = leaf_of(parent) == "block_sparse_moe" || leaf_of(parent) == "mlp";
  if (!known || (leaf != kInput && leaf != kOutput)) return std::nullopt;
  return Factor{parent, leaf == kInput, parsed.part == TensorPart::lora_a ? Side::A : Side::B};
}

bool owns(std::string_view name) { return factor_of(name).has_value(); }

void read(const ForeignAdapter& in, Translation& out) {
  std::set<std::string_view> with_output;  // parents; the outermost pair is output_linear's
  for (const auto& entry : in.tensors)
    if (const auto factor = factor_of(entry.first); factor && !factor->is_input)
      with_output.insert(factor->parent);
  for (const auto& [name, tensor] : in.tensors) {
    const auto factor = factor_of(name);
    if (!factor) {
      put(out, name, name, tensor);
      continue;
    }
    const bool inner = factor->is_input && with_output.count(factor->parent) != 0;
    const std::string module =
        fmt::format("{}.experts{}", factor->parent, inner ? ".base_layer" : "");
    put(out, name, lora_name(module, factor->side), tensor);
  }
}

}  // namespace

const Dialect dialects::granite_parallel_experts = {
    .id = "granite-parallel-experts",
    .whose = "PEFT on GraniteMoE before transformers 5.13, and on JetMoe",
    .names =
        "block_sparse_moe.input_linear.lora_A.weight, block_sparse_moe.output_linear; of "
        "JetMoe mlp.input_linear, mlp.output_linear",
    .shapes = "A [E*r, in], B [out, r*E], as peft-params",
    .sources =
        "PEFT 0.21.2 (tuners/lora/layer.py: ParamWrapper), transformers 4.57 "
        "(GraniteMoeParallelExperts)",
    .advice = "",
    .readers = "only PEFT reads, on GraniteMoE with transformers before 5.13",
    .owns = owns,
    .read = read,
};

}  // namespace moelora
