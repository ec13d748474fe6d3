#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/check/specimen.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {
namespace {

void check(RuleContext& context) {
  context.explain_plan([](Finding& finding, const PlanEvent&) {
    if (finding.names.empty()) finding.file = "added_tokens.json";
  });
}

}  // namespace

const Rule sgl027_added_tokens = {
    .id = "SGL027",
    .name = "added-tokens",
    .cause = &sglang::cause::added_tokens,
    .engine = &engines::sglang,
    .what = "added_tokens.json has ids beyond the base's vocabulary.",
    .why =
        "SGLang reads the tokenizer's file that lies beside an adapter: \"Failed to load my-lora "
        "because LoRA serving currently doesn't support adapters that add tokens to the "
        "vocabulary\", whether the adapter has embeddings for them or not.",
    .fix = "Remove added_tokens.json from the adapter's folder; it is the tokenizer's.",
    .remedy = Remedy::for_engine,
    .source = "SGLang issue 17905, PR 18046; lora/lora_config.py",
    .breaks = {.change = "add a token beyond the vocabulary",
               .apply =
                   [](Specimen& specimen) {
                     specimen.adapter().added_tokens = Json::object({{"<new>", 160}});
                     specimen.adapter().listing.push_back("added_tokens.json");
                   }},
    .check = check,
};

}  // namespace moelora
