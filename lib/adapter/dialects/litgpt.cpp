// LitGPT joins q, k and v.

#include "lib/adapter/dialect.h"
#include "lib/adapter/foreign/dialect_tools.h"

namespace moelora {
namespace {

bool owns(std::string_view name) {
  return has_any(name, {"transformer.h."}) &&
         has_any(name, {".attn.qkv.lora_", ".attn.attn.lora_"});
}

}  // namespace

const Dialect dialects::litgpt = {
    .id = "litgpt",
    .whose = "LitGPT",
    .names = "transformer.h.N.attn.qkv.lora_A, q, k and v in one",
    .shapes = "",
    .sources = "LitGPT",
    .advice = "Merge it with litgpt merge_lora and convert that model, or train with PEFT.",
    .owns = owns,
};

}  // namespace moelora
