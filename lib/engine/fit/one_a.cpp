// One lora_A for gate and up: A' = [A_gate; A_up], B_gate' = [B_gate, 0], B_up' = [0, B_up]. Where
// the layout has one pair for both; and for SGLang, whose virtual experts multiply up's lora_B with
// gate's lora_A, as gpt-oss on the default path does for half of its rows (facts: sglang.md 4.3,
// 4.4, measured).

#include <fmt/format.h>

#include "lib/adapter/gate_up.h"
#include "lib/engine/fit/step.h"

namespace moelora::fit {
namespace {

std::map<int, int64_t> gate_ranks(const Adapter& adapter) {
  std::map<int, int64_t> out;
  for (const auto& [key, pair] : adapter.experts)
    if (key.projection == Projection::gate) out[key.layer] = max_rank(pair);
  return out;
}

std::string reason(const FitContext& context, bool misread) {
  if (!misread)
    return fmt::format("{} holds one lora_A for gate and up", context.choice.layout->id);
  return fmt::format("{} multiplies up with gate's lora_A {}", context.title(),
                     context.options.server.on("lora-use-virtual-experts") ? "under virtual experts"
                                                                           : "on gpt-oss");
}

void note_doubled(FitContext& context, const std::map<int, int64_t>& before, bool misread) {
  int64_t layers = 0, from = 0, to = 0;
  for (const auto& [key, pair] : context.adapter.experts) {
    if (key.projection != Projection::gate_up || max_rank(pair) <= before.at(key.layer)) continue;
    ++layers;
    from = before.at(key.layer);
    to = max_rank(pair);
  }
  if (layers > 0)
    context.note(one_a.name, fmt::format("{}: in {} layers both get one of rank {} instead of {}, "
                                         "with zeros in lora_B (exact)",
                                         reason(context, misread), layers, to, from));
}

void run(FitContext& context) {
  const Layout& layout = *context.choice.layout;
  const bool misread = needs_one_a({context.engine(), context.options.server, context.spec, false});
  if (context.adapter.experts.empty() || !context.spec.gated || !(misread || layout.fused)) return;
  const auto before = gate_ranks(context.adapter);
  const bool family_order = layout.fused && !layout.gate_up_order;
  fuse_gate_up(context.adapter, family_order ? context.spec.gate_up_order : GateUpOrder::halves,
               context.options.threads);
  note_doubled(context, before, misread);
}

}  // namespace

const FitStep one_a = {
    "one-a", "sglang, vllm",
    "gate and up with a lora_A of their own, where the layout or the server (gpt-oss, virtual "
    "experts of SGLang) has one for both: stacked, of twice the rank",
    run};

}  // namespace moelora::fit
