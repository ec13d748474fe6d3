// Grouped experts of NeMo AutoModel.

#include "lib/adapter/dialect.h"
#include "lib/adapter/dialect_tools.h"

namespace moelora {
namespace {

bool owns(std::string_view name) { return is_lora_word(last_word(name), 'A', 'B'); }

}  // namespace

const Dialect dialects::automodel = {
    .id = "automodel",
    .whose = "NeMo AutoModel",
    .names = "experts.lora_gate_and_up_A, experts.lora_down_A: [E, in, r]",
    .shapes = "",
    .sources = "NeMo AutoModel",
    .advice =
        "Save it again with an AutoModel that writes PEFT's names, or train without the experts' "
        "grouped LoRA.",
    .owns = owns,
};

}  // namespace moelora
