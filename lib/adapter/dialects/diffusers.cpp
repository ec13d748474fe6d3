// lora_down and lora_up beside a module's path.

#include "lib/adapter/dialect.h"
#include "lib/adapter/dialect_tools.h"

namespace moelora {
namespace {

bool owns(std::string_view name) {
  return !name.starts_with("lora_") &&
         has_any(name, {".lora_down", ".lora_up", "lora.down", "lora.up"});
}

}  // namespace

const Dialect dialects::diffusers = {
    .id = "diffusers",
    .whose = "diffusers",
    .names = "MODULE.lora_down.weight, MODULE.lora_up.weight or lora.down, lora.up",
    .shapes = "",
    .sources = "diffusers, kohya-ss/sd-scripts",
    .advice = "Export it with that trainer's own converter to PEFT's names first.",
    .owns = owns,
};

}  // namespace moelora
