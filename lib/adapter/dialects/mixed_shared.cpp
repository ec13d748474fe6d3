// Megatron-Bridge's export of LoRA whose outer factors all experts share
// (experts_shared_outer_loras without --expand-shared-outer): the shared side stands once under a
// name without an expert's number, [1, ..], the other side once for each expert, 2-D. PEFT and
// SGLang want both sides in one form.

#include <map>
#include <utility>

#include "lib/adapter/dialect.h"
#include "lib/adapter/foreign/dialect_tools.h"
#include "lib/adapter/foreign/expert_stacks.h"
#include "lib/adapter/layout.h"
#include "lib/base/dotted_path.h"

namespace moelora {
namespace {

using Form = ExpertPath::Form;

bool is_once_for_all(const Tensor& factor) {
  return factor.rank() == 2 || (factor.rank() == 3 && factor.dim(0) == 1);
}

// Which sides of one projection stand once for all experts, and which once for each.
struct Sides {
  bool shared[2] = {false, false};
  bool numbered[2] = {false, false};

  bool are_mixed() const {
    return (shared[0] && numbered[1] && !numbered[0]) || (shared[1] && numbered[0] && !numbered[1]);
  }
};

using Projections = std::map<std::pair<std::string, std::string>, Sides>;  // by stem and word

void look_at(const ExpertTensor& t, Projections& out) {
  const auto side = static_cast<size_t>(t.side);
  Sides& sides = out[{t.path.stem, std::string(leaf_of(t.path.rest))}];
  if (t.path.form == Form::numbered) sides.numbered[side] = true;
  if (t.path.form == Form::named && is_once_for_all(t.tensor)) sides.shared[side] = true;
}

bool fits(std::span<const TensorMap::value_type* const> samples, const Json&) {
  Projections found;
  for (const auto* sample : samples) {
    const auto& [name, tensor] = *sample;
    if (const auto t = expert_tensor(name, parse_tensor_name(name), tensor)) look_at(*t, found);
  }
  for (const auto& entry : found)
    if (entry.second.are_mixed()) return true;
  return false;
}

void read(const ForeignAdapter& in, Translation& out) {
  ExpertStacks stacks(in);
  for (const auto& [name, tensor] : in.tensors) {
    const auto t = expert_tensor(name, parse_tensor_name(name), tensor);
    if (t && t->path.form == Form::numbered)
      stacks.add(name, t->path, t->side, tensor);
    else if (t && t->path.form == Form::named && tensor.rank() == 2)
      put(out, name, name, shared_factor(name, tensor));
    else
      put(out, name, name, tensor);
  }
  stacks.put_all(out);
}

}  // namespace

const Dialect dialects::mixed_shared = {
    .id = "mixed-shared",
    .whose = "Megatron-Bridge (shared outer factors)",
    .names = "experts.gate_proj.lora_A beside experts.{e}.gate_proj.lora_B, and down the reverse",
    .shapes = "the shared side [1, r, in] or [1, out, r], the other 2-D",
    .sources =
        "Megatron-Bridge 067f987d (models/conversion/peft_bridge.py, tests/unit_tests/"
        "models/test_adapter_export.py), PR 6076",
    .advice = "",
    .fits = fits,
    .read = read,
};

}  // namespace moelora
