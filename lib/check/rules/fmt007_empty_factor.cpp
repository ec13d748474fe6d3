#include <fmt/core.h>

#include "lib/check/define_rule.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/check/specimen.h"

namespace moelora {
namespace {

// Nemotron-like trainers save an empty w3 beside w1 and w2: the experts have no gate.
bool is_absent_up(const AdapterParts& parts, const FactorPair& pair) {
  const NamedTensor *a = parts.a(pair), *b = parts.b(pair);
  return a != nullptr && b != nullptr && a->elements() == 0 && b->elements() == 0 && a->expert &&
         a->expert->projection == Projection::up;
}

void check(RuleContext& context) {
  const AdapterParts& parts = context.subject().parts;
  NameGroups empty, absent;
  for (const FactorPair& pair : parts.pairs) {
    if (is_absent_up(parts, pair)) {
      if (context.spec() != nullptr && context.spec()->gated)
        for (const NamedTensor* t : {parts.a(pair), parts.b(pair)})
          absent.add("is empty, and the experts of this base model have a gate and an up", t->name);
      continue;
    }
    for (const NamedTensor* t : {parts.a(pair), parts.b(pair)})
      if (t != nullptr && (t->elements() == 0 || t->shape.size() < 2))
        empty.add(fmt::format("has shape {}, expected {} dims and none of them zero",
                              to_string(t->shape), t->expert ? "two or three" : "two"),
                  t->name);
  }
  empty.report(context);
  absent.report(context, Severity::warning);
}

void break_it(Specimen& specimen) {
  specimen.set("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
               specimen.zeros({0}));
}

}  // namespace

const Rule fmt007_empty_factor = {
    .id = "FMT007",
    .name = "empty-factor",
    .what = "A factor has no element or one dim.",
    .why =
        "That is what a save under ZeRO-3 or FSDP leaves on a rank that does not hold the "
        "weights. vLLM: \"tuple index out of range\" when the adapter is loaded, or \"too many "
        "indices for tensor of dimension 1\" under tensor parallelism.",
    .fix =
        "Gather the parameters before saving (DeepSpeed: stage3_gather_16bit_weights_on_model_"
        "save; FSDP: a full state dict).",
    .source = "vLLM issue 28640",
    .breaks = {.change = "make one lora_A a tensor of shape [0]", .apply = break_it},
    .check = check,
};

}  // namespace moelora
