// PEFT's target_parameters on the experts that JetMoe's attention has beside those of its MLP:
// self_attention.experts.input_linear (queries) and output_linear, batched [E, out, in]. No layout
// has a place for a second group of experts, and no server is known that would read one.

#include "lib/adapter/dialect.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/dotted_path.h"

namespace moelora {
namespace {

bool owns(std::string_view name) {
  const TensorNameView parsed = view_tensor_name(name);
  if (parsed.part != TensorPart::lora_a && parsed.part != TensorPart::lora_b) return false;
  const std::string_view leaf = leaf_of(parsed.module);
  return (leaf == "input_linear" || leaf == "output_linear") &&
         ends_in(parent_of(parsed.module), "self_attention.experts");
}

}  // namespace

const Dialect dialects::jetmoe_attention = {
    .id = "jetmoe-attention",
    .whose = "PEFT on the experts of JetMoe's attention",
    .names = "self_attention.experts.input_linear.lora_A.weight",
    .shapes = "",
    .sources = "PEFT 0.21.2 (tuners/lora/layer.py: ParamWrapper), transformers 5.24 (JetMoeMoA)",
    .advice =
        "No layout has a place for a second group of experts: train without "
        "self_attention.experts in target_parameters.",
    .readers = "only PEFT reads",
    .owns = owns,
};

}  // namespace moelora
