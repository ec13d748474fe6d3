#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl010_rslora_ignored = {
    .id = "SGL010",
    .name = "rslora-ignored",
    .cause = &sglang::cause::rslora_ignored,
    .config_key = "use_rslora",
    .engine = &engines::sglang,
    .what = "use_rslora is set.",
    .why =
        "SGLang scales by lora_alpha / r whatever use_rslora says: every delta is sqrt(r) too "
        "weak, and nothing says so.",
    .fix =
        "Set use_rslora to false and lora_alpha to lora_alpha * sqrt(r) in adapter_config.json: "
        "the same scale, spelled out.",
    .remedy = Remedy::for_engine,
    .source = "SGLang issue 40835; lora/lora.py",
    .breaks = {.change = "set use_rslora", .config = {{"use_rslora", "true"}}},
};

}  // namespace moelora
