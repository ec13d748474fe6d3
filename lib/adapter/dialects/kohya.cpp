// kohya-ss's names: a module's path with underscores for dots.

#include "lib/adapter/dialect.h"
#include "lib/adapter/dialect_tools.h"

namespace moelora {
namespace {

bool owns(std::string_view name) {
  const std::string_view module = name.substr(0, name.find('.'));
  return module.starts_with("lora_") && module.size() < name.size() &&
         has_any(name, {".lora_down", ".lora_up", ".alpha", ".dora_scale"});
}

}  // namespace

const Dialect dialects::kohya = {
    .id = "kohya",
    .whose = "kohya",
    .names = "lora_te_MODULE.lora_down.weight, .lora_up.weight, .alpha",
    .shapes = "",
    .sources = "kohya-ss/sd-scripts",
    .advice = "Export it with that trainer's own converter to PEFT's names first.",
    .owns = owns,
};

}  // namespace moelora
