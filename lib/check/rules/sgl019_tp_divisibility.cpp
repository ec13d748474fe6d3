#include "lib/check/example_edits.h"
#include "lib/check/rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

extern const Rule sgl019_tp_divisibility;
const Rule sgl019_tp_divisibility = {
    .id = "SGL019",
    .name = "tp-divisibility",
    .cause = &sglang::cause::tp_divisibility,
    .engine = &engines::sglang,
    .needs_base = true,
    .whole_deployment = true,
    .what = "The model does not split over --tp or --ep ranks.",
    .why =
        "Heads, the width of an expert (over tp / ep), of dense and shared MLPs, and the experts "
        "(over ep) must divide: \"64 is not divisible by 3\" when the model is built, with or "
        "without an adapter.",
    .fix = "Use a tensor-parallel size that divides them all.",
    .source = "SGLang srt/distributed/utils.py, divide",
    .breaks = {.specimen = "qwen3_moe_per_expert",
               .change = "serve it over 3 ranks",
               .engine = "sglang",
               .apply = [](Specimen& specimen) { set_option(specimen, "tp-size=3"); }},
};

}  // namespace moelora
