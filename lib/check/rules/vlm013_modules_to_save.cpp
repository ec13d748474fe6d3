#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm013_modules_to_save = {
    .id = "VLM013",
    .name = "modules-to-save",
    .cause = &vllm::cause::modules_to_save,
    .config_key = "modules_to_save",
    .engine = &engines::vllm,
    .what = "The adapter replaces whole modules (modules_to_save), or holds their tensors.",
    .why =
        "\"vLLM only supports modules_to_save being None.\" (since 0.31 classifier and score are "
        "taken, for classification models); a whole tensor in the file "
        "(lm_head.weight) \"is unsupported LoRA weight\".",
    .fix = "Merge the saved modules into the base model and clear modules_to_save.",
    .remedy = Remedy::for_engine,
    .source = "vLLM lora/peft_helper.py; issue 9280",
    .breaks = {.change = "name lm_head in modules_to_save",
               .config = {{"modules_to_save", R"(["lm_head"])"}}},
    .implies = {"CFG005"},
};

}  // namespace moelora
