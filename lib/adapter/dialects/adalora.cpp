// AdaLoRA: known by name and refused.

#include "lib/adapter/dialect.h"
#include "lib/adapter/foreign/dialect_tools.h"

namespace moelora {
namespace {

bool owns(std::string_view name) { return has_any(name, {".lora_E", ".ranknum"}); }

}  // namespace

const Dialect dialects::adalora = {
    .id = "adalora",
    .whose = "AdaLoRA",
    .names = "MODULE.lora_E, MODULE.ranknum",
    .shapes = "",
    .sources = "PEFT 0.21.2, tuners/adalora",
    .advice =
        "AdaLoRA's delta is B diag(E) A, which no server computes: merge it with PEFT's "
        "merge_and_unload and serve that model.",
    .owns = owns,
};

}  // namespace moelora
