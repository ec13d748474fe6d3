// LoRA layers of NeMo and Megatron-Bridge as their own checkpoints name them.

#include "lib/adapter/dialect.h"
#include "lib/adapter/dialect_tools.h"

namespace moelora {
namespace {

bool owns(std::string_view name) { return has_any(name, {".linear_in.", ".linear_out."}); }

}  // namespace

const Dialect dialects::megatron_bridge = {
    .id = "megatron-bridge",
    .whose = "NeMo or Megatron-Bridge",
    .names = "adapter.linear_in.weight, adapter.linear_out.weight",
    .shapes = "",
    .sources = "Megatron-Bridge 0.6.2",
    .advice = "Export it to Hugging Face names first (Megatron-Bridge: export_adapter_ckpt).",
    .owns = owns,
};

}  // namespace moelora
