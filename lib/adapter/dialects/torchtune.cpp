// torchtune's and torchtitan's names.

#include "lib/adapter/dialect.h"
#include "lib/adapter/dialect_tools.h"

namespace moelora {
namespace {

bool owns(std::string_view name) {
  return ends_in_one(name, {".lora_a.weight", ".lora_b.weight"}) ||
         is_lora_word(last_word(name), 'a', 'b');
}

}  // namespace

const Dialect dialects::torchtune = {
    .id = "torchtune",
    .whose = "torchtune or torchtitan",
    .names = "MODULE.lora_a.weight, MODULE.lora_b.weight",
    .shapes = "",
    .sources = "torchtune",
    .advice =
        "Save it again in PEFT's form (torchtune: save_adapter_weights_only with the Hugging Face "
        "checkpointer).",
    .owns = owns,
};

}  // namespace moelora
