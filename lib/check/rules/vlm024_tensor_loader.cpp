#include <algorithm>

#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/check/specimen.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {
namespace {

// Nothing can be converted where there is no factor.
void check(RuleContext& context) {
  const auto& files = context.subject().served.files;
  const bool empty = std::all_of(files.begin(), files.end(),
                                 [](const WeightFile& file) { return file.tensors.empty(); });
  context.explain_plan([&](Finding& finding, const PlanEvent&) {
    if (!context.subject().instead.empty())
      finding.fix = context.subject().instead;
    else if (empty)
      finding.fix = "Save the adapter again: its factors belong in adapter_model.safetensors.";
  });
}

}  // namespace

const Rule vlm024_tensor_loader = {
    .id = "VLM024",
    .name = "tensor-loader",
    .cause = &vllm::cause::tensor_loader,
    .engine = &engines::vllm,
    .what =
        "No weights file that vLLM reads: shards, another file name, or a file without a factor.",
    .why =
        "vLLM looks for adapter_model.safetensors, adapter_model.bin and adapter_model.pt and for "
        "no index: \"... doesn't contain tensors\". A file without a factor ends in StopIteration.",
    .fix = "Save the adapter in one adapter_model.safetensors.",
    .remedy = Remedy::for_engine,
    .source = "vLLM lora/lora_model.py, from_local_checkpoint; oracle attention_only_sharded",
    .breaks = {.change = "name the weights lora.safetensors",
               .apply =
                   [](Specimen& specimen) {
                     Subject& adapter = specimen.adapter();
                     adapter.files[0].name = adapter.main_file = "lora.safetensors";
                     adapter.own_files = {adapter.main_file};
                     adapter.listing = {"adapter_config.json", adapter.main_file};
                   }},
    .check = check,
};

}  // namespace moelora
