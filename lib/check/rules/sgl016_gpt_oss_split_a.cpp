#include <fmt/core.h>

#include "lib/adapter/tensor_name.h"
#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/specimen.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {
namespace {

void split(Specimen& specimen, int layer, const std::string& part) {
  const std::string module = fmt::format("model.layers.{}.mlp.experts.{}", layer, part);
  specimen.set(lora_name(module, Side::A), specimen.random({4, 4, 64}, part == "up_proj" ? 1 : 2));
  specimen.set(lora_name(module, Side::B), specimen.random({4, 48, 4}, 3));
}

}  // namespace

const Rule sgl016_gpt_oss_split_a = {
    .id = "SGL016",
    .name = "gpt-oss-split-a",
    .cause = &sglang::cause::gpt_oss_split_a,
    .engine = &engines::sglang,
    .needs_values = true,
    .what = "gate_proj and up_proj of a GPT-OSS adapter have different lora_A.",
    .why =
        "SGLang interleaves the rows of gate's and up's lora_B for GPT-OSS, then computes the "
        "first half of the rows with gate's lora_A and the second with up's, although each half "
        "holds rows of both. Nothing says so: relative errors of 0.9 to 1.8 against the trained "
        "layer, measured.",
    .fix =
        "Train with one lora_A for gate and up (target_parameters), or merge the adapter into "
        "the base model and serve that.",
    .remedy = Remedy::for_engine,
    .source = "SGLang lora/lora_moe_runners.py, _add_lora_gate_up_delta; measured on an H200",
    .breaks = {.specimen = "gpt_oss_stacked",
               .change = "give gate and up a lora_A each",
               .apply =
                   [](Specimen& specimen) {
                     for (int layer = 0; layer < 2; ++layer)
                       for (const char* part : {"gate_proj", "up_proj"})
                         split(specimen, layer, part);
                     remove_tensors(specimen, "gate_up_proj");
                     set_targets(specimen, {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj",
                                            "up_proj", "down_proj"});
                   }},
    .check = report_differing_a,
};

}  // namespace moelora
