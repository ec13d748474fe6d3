// mlx-lm's own adapters: adapters.safetensors beside an adapter_config.json of its own. Factors of
// an nn.Linear are transposed, those of a SwitchLinear (the routed experts) are not.

#include <fmt/core.h>

#include <array>

#include "lib/adapter/config_reader.h"
#include "lib/adapter/dialect.h"
#include "lib/adapter/dialect_tools.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/dotted_path.h"

namespace moelora {
namespace {

bool owns(std::string_view name) { return ends_in_one(name, {".lora_a", ".lora_b"}); }

// mlx-lm stacks routed experts in modules of its own names (models/switch_layers.py).
std::string hub_module(std::string module) {
  constexpr std::array<std::array<std::string_view, 2>, 3> kWords = {
      {{".switch_mlp.fc1", ".experts.up_proj"},
       {".switch_mlp.fc2", ".experts.down_proj"},
       {".switch_mlp.", ".experts."}}};
  for (const auto& [mlx, hub] : kWords)
    if (const size_t at = module.find(mlx); at != std::string::npos)
      return module.replace(at, mlx.size(), hub);
  return module;
}

bool is_embedding(std::string_view module) {
  const std::string_view leaf = leaf_of(module);
  return leaf == "embed_tokens" || leaf == "wte" || leaf == "embeddings";
}

void read(const ForeignAdapter& in, Translation& out) {
  for (const auto& [name, tensor] : in.tensors) {
    if (!owns(name)) {
      out.tensors.emplace(name, tensor);
      continue;
    }
    const Side side = name.back() == 'a' ? Side::A : Side::B;
    const std::string module = hub_module(std::string(parent_of(name)));
    const Tensor factor = tensor.rank() == 2 ? tensor.transpose(0, 1) : tensor;
    const std::string to = is_embedding(module)
                               ? fmt::format("{}.lora_embedding_{}", module, side_letter(side))
                               : lora_name(module, side);
    put(out, name, to, factor);
  }
}

// delta = scale * B A, and PEFT's scale is lora_alpha / r.
Json config(const ForeignAdapter& in) {
  const ConfigReader own(in.config, in.where);
  const ConfigReader parameters(own.required("lora_parameters"), in.where);
  const int64_t rank = parameters.positive_int("rank", parameters.required("rank"));
  const double scale = parameters.number("scale", parameters.required("scale"));
  Json out = peft_config(rank, scale * static_cast<double>(rank));
  if (const std::string base = own.string("model"); !base.empty())
    out.set("base_model_name_or_path", base);
  out.set("use_dora", own.string("fine_tune_type") == "dora");
  return out;
}

}  // namespace

const Dialect dialects::mlx = {
    .id = "mlx",
    .whose = "MLX",
    .names = "MODULE.lora_a [in, r], MODULE.lora_b [r, out], switch_mlp [E, r, in]",
    .shapes = "A [in, r], B [r, out]; of experts A [E, r, in], B [E, out, r]",
    .sources = "mlx-lm 0.32.2 (tuner/lora.py, tuner/utils.py)",
    .advice = "",
    .owns = owns,
    .config = config,
    .read = read,
};

}  // namespace moelora
