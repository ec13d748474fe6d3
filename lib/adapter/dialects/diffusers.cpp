// lora_down and lora_up (or lora.down, lora.up) beside a module's path, as diffusers and what reads
// it write them; the alphas beside them are tensors. No config is needed.

#include "lib/adapter/dialect.h"
#include "lib/adapter/foreign/dialect_tools.h"
#include "lib/adapter/foreign/up_down.h"
#include "lib/adapter/tensor_name.h"

namespace moelora {
namespace {

bool owns(std::string_view name) {
  if (name.starts_with("lora_") || name.starts_with("lycoris_")) return false;
  if (view_tensor_name(name).part != TensorPart::other) return false;  // an adapter called lora_up
  return has_any(name, {".lora_down", ".lora_up", ".lora_mid", "lora.down", "lora.up",
                        ".lora_linear_layer.", ".dora_scale"});
}

bool is_of(const ModelSpec& spec, std::string_view module) {
  return spec.find_linear(module) != nullptr || module.starts_with("model.");
}

// What diffusers puts in front of the names of one part of a pipeline. "transformer." begins the
// paths of some language models too (GPT-2's transformer.h).
std::string_view without_part(std::string_view module, const ModelSpec* spec) {
  if (spec != nullptr && spec->find_linear(module) != nullptr) return module;
  for (const std::string_view part : {"text_encoder.", "text_encoder_2.", "text_encoder_3.",
                                      "diffusion_model.", "transformer."}) {
    if (!module.starts_with(part)) continue;
    const std::string_view rest = module.substr(part.size());
    const bool sure = part != "transformer." || rest.starts_with("model.") ||
                      rest.starts_with("layers.") || (spec != nullptr && is_of(*spec, rest));
    if (sure) return rest;
  }
  return module;
}

std::string hub_module(std::string_view module, const ModelSpec* spec) {
  module = without_part(without_peft_prefix(module), spec);
  // A pipeline holds the model without its head, whose paths lack the first component.
  return std::string(module.starts_with("layers.") ? "model." : "").append(module);
}

void read(const ForeignAdapter& in, Translation& out) {
  read_up_down(
      in, owns,
      [&](const std::string&, std::string_view module) { return hub_module(module, in.spec); },
      out);
}

}  // namespace

const Dialect dialects::diffusers = {
    .id = "diffusers",
    .whose = "diffusers",
    .names = "MODULE.lora_down.weight, MODULE.lora_up.weight or lora.down, lora.up",
    .shapes = "down [r, in], up [out, r], alpha one number",
    .sources = "diffusers 0.36 (utils/state_dict_utils.py), kohya-ss/sd-scripts",
    .advice = "",
    .owns = owns,
    .config = up_down_config,
    .read = read,
};

}  // namespace moelora
