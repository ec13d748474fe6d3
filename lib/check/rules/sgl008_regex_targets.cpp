#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl008_regex_targets = {
    .id = "SGL008",
    .name = "regex-targets",
    .cause = &sglang::cause::regex_targets,
    .config_key = "target_modules",
    .engine = &engines::sglang,
    .what = "target_modules is a regular expression.",
    .why =
        "SGLang takes a list of names, or one of two strings: \"Only 'all' or 'all-linear' can be "
        "used as the string for target module\". PEFT keeps the expression it was given, as many "
        "trainers of vision-language models write one.",
    .fix = "Write the list of module names that the adapter holds into target_modules.",
    .remedy = Remedy::for_engine,
    .source = "SGLang lora/utils.py, get_normalized_target_modules; PR 14105, verl issue 7413",
    .breaks =
        {.change = "write target_modules as an expression",
         .config = {{"target_modules",
                     R"j(".*\\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)")j"}}},
};

}  // namespace moelora
