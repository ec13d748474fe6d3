#include "lib/adapter/numbered_factors.h"

#include <algorithm>

#include "lib/adapter/expert_collector.h"

namespace moelora {
namespace {

// For SGLang the up of experts without a gate is called gate_proj or w1.
bool gate_is_up(MatchRest match, std::span<const ExpertTensor> tensors,
                const ReadContext& context) {
  if (context.spec == nullptr || context.spec->gated) return false;
  return std::none_of(tensors.begin(), tensors.end(), [&](const ExpertTensor& t) {
    return match(t)->projection == Projection::up;
  });
}

}  // namespace

void read_numbered(MatchRest match, std::span<const ExpertTensor> tensors,
                   const ReadContext& context, Adapter& adapter) {
  ExpertCollector collector(context);
  const bool no_gate = gate_is_up(match, tensors, context);
  for (const ExpertTensor& t : tensors) {
    auto at = *match(t);
    if (no_gate && at.projection == Projection::gate) at.projection = Projection::up;
    collector.add(t, at.projection, *at.expert, t.tensor,
                  layer_path(t.path.stem, t.path.layer) + "." + t.path.rest);
  }
  collector.finish(adapter);
}

WrittenExperts write_numbered(const WriteContext& context,
                              const std::function<std::string(int64_t expert, Projection)>& rest) {
  WrittenExperts out;
  for (const auto& [key, pair] : context.adapter.experts) {
    const std::string stem = written_stem(context, Form::hub, key.layer);
    for (int64_t e = 0; e < context.adapter.expert_count; ++e) {
      if (!pair.a.has(e)) continue;
      const std::string module = stem + "." + rest(e, key.projection);
      out.tensors[lora_name(module, Side::A)] = pair.a.at(e);
      out.tensors[lora_name(module, Side::B)] = pair.b.at(e);
      out.targets.push_back({module, false, pair.scaling_of(e)});
    }
  }
  return out;
}

}  // namespace moelora
