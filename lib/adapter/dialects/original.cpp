// Module names of a model's original code (Mistral's, Meta's). Hugging Face's LFM2 has
// feed_forward.w1 too, below "model.".

#include "lib/adapter/dialect.h"
#include "lib/adapter/dialect_tools.h"

namespace moelora {
namespace {

bool owns(std::string_view name) {
  if (!has_any(name, {"lora"})) return false;
  if (has_any(name, {".attention.wq.", ".attention.wk.", ".attention.wv.", ".attention.wo.",
                     ".attention.wqkv."}))
    return true;
  while (name.starts_with(kPeftPrefix)) name.remove_prefix(kPeftPrefix.size());
  return name.starts_with("layers.") && has_any(name, {".feed_forward."});
}

}  // namespace

const Dialect dialects::original = {
    .id = "original",
    .whose = "the model's original code",
    .names = "layers.N.attention.wq, wk, wv, wo",
    .shapes = "",
    .sources = "mistral-finetune",
    .advice =
        "Rename the modules to those of Hugging Face (q_proj, k_proj, v_proj, o_proj): q and k "
        "rows are in another order there, so use the converter of the model's publisher.",
    .owns = owns,
};

}  // namespace moelora
