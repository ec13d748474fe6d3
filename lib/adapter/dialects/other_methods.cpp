// Methods that are no LoRA: known by name and refused.

#include "lib/adapter/dialect.h"
#include "lib/adapter/foreign/dialect_tools.h"

namespace moelora {
namespace {

bool owns(std::string_view name) {
  return has_any(name, {".hada_", ".lokr_", ".oft_", ".boft_", ".ia3_", ".vera_", ".fourierft_",
                        ".randlora_", ".vblora_", ".road_", ".shira_", ".hra_", ".delora_"});
}

}  // namespace

const Dialect dialects::other_methods = {
    .id = "other-methods",
    .whose = "another method than LoRA",
    .names = "hada_, lokr_, oft_, boft_, ia3_, vera_, fourierft_",
    .shapes = "",
    .sources = "PEFT 0.21.2, tuners",
    .advice = "Servers compute plain LoRA alone: merge it with the trainer and serve that model.",
    .owns = owns,
};

}  // namespace moelora
