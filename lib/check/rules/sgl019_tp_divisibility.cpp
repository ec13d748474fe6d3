#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl019_tp_divisibility = {
    .id = "SGL019",
    .name = "tp-divisibility",
    .cause = &sglang::cause::tp_divisibility,
    .engine = &engines::sglang,
    .whole_deployment = true,
    .what = "The model does not split over --tp or --ep ranks.",
    .why =
        "Heads, the width of an expert (over tp / ep), of dense and shared MLPs, and the experts "
        "(over ep) must divide: \"64 is not divisible by 3\" when the model is built, with or "
        "without an adapter.",
    .fix = "Use a tensor-parallel size that divides them all.",
    .source = "SGLang srt/distributed/utils.py, divide",
    .breaks = {.change = "serve it over 3 ranks", .options = {"tp-size=3"}},
};

}  // namespace moelora
