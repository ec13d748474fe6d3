// Module names of Megatron-Core with PEFT's factors (ms-swift's own checkpoints).

#include "lib/adapter/dialect.h"
#include "lib/adapter/dialect_tools.h"

namespace moelora {
namespace {

bool owns(std::string_view name) {
  if (!has_any(name, {"lora"})) return false;
  if (has_any(name, {".linear_qkv.", ".linear_kv_up_proj."})) return true;
  return has_any(name, {"decoder.layers."}) &&
         has_any(name, {".linear_proj.", ".linear_fc1.", ".linear_fc2.", ".linear_q"});
}

}  // namespace

const Dialect dialects::megatron_core = {
    .id = "megatron-core",
    .whose = "Megatron-Core",
    .names = "decoder.layers.N, linear_qkv, linear_proj, linear_fc1, linear_fc2",
    .shapes = "",
    .sources = "ms-swift 3602360a, mcore-bridge f020e479",
    .advice =
        "Export it to Hugging Face names first (ms-swift: swift export --to_hf true; "
        "Megatron-Bridge: export_adapter_ckpt).",
    .owns = owns,
};

}  // namespace moelora
