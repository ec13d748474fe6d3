#include "lib/adapter/expert_factors.h"

#include <fmt/core.h>

#include <algorithm>

#include "lib/adapter/adapter.h"
#include "lib/adapter/expert_collector.h"
#include "lib/base/error.h"

namespace moelora {
namespace {

// For SGLang the up of experts without a gate is called gate_proj or w1.
bool gate_is_up(const NamePattern& names, std::span<const ExpertTensor> tensors,
                const ReadContext& context) {
  if (context.spec == nullptr || context.spec->gated) return false;
  return std::none_of(tensors.begin(), tensors.end(), [&](const ExpertTensor& t) {
    return names.match(t.path.rest)->projection == Projection::up;
  });
}

}  // namespace

void read_numbered(const NamePattern& names, std::span<const ExpertTensor> tensors,
                   const ReadContext& context, Adapter& adapter) {
  ExpertCollector collector(context);
  const bool no_gate = gate_is_up(names, tensors, context);
  for (const ExpertTensor& t : tensors) {
    auto at = *names.match(t.path.rest);
    if (no_gate && at.projection == Projection::gate) at.projection = Projection::up;
    collector.add(t, at.projection, *at.expert, t.tensor,
                  with_layer(t.path.stem, t.path.layer) + "." + t.path.rest);
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

namespace {

// Nemotron-like trainers save up as w1 and an empty w3: without a gate, w1 is up.
bool gate_is_up(std::span<const ExpertTensor> tensors, const ReadContext& context) {
  if (context.spec != nullptr) return !context.spec->gated;
  return std::any_of(tensors.begin(), tensors.end(), [](const ExpertTensor& t) {
    return t.path.rest == "w3" && t.tensor.elements() == 0;
  });
}

// What patterns are matched with: "...experts.w2" as the file spells it where a pattern names that,
// else "...experts.down_proj", as our own files and PEFT's parameters do.
std::string pattern_path(const ExpertTensor& t, Projection projection,
                         const AdapterConfig& config) {
  const std::string stem = with_layer(t.path.stem, t.path.layer) + ".";
  const bool named =
      config.scaling(stem + t.path.rest) != Scaling{config.r, config.lora_alpha, config.use_rslora};
  return stem + (named ? t.path.rest : std::string(projection_name(projection)));
}

}  // namespace

bool is_outer(Projection projection, Side side) {
  return projection == Projection::down ? side == Side::B : side == Side::A;
}

const Tensor& outer_part(const ExpertKey& key, const ExpertPair& pair, int64_t experts,
                         std::string_view holder) {
  const Side side = key.projection == Projection::down ? Side::B : Side::A;
  const Factor& factor = side == Side::A ? pair.a : pair.b;
  if (factor.shared) return factor.parts.front();
  for (int64_t e = 0; e < experts; ++e)
    if (!factor.has(e) || !factor.has(0) || !identical(factor.at(0), factor.at(e)))
      throw Error(fmt::format("layer {} {} lora_{}", key.layer, projection_name(key.projection),
                              side_letter(side)),
                  fmt::format("differs between experts 0 and {}; {}", e, holder),
                  {"use ", Option::to, " stacked, which holds one per expert"});
  return factor.parts.front();
}

void read_stacked(const NamePattern& names, std::span<const ExpertTensor> tensors,
                  const ReadContext& context, Adapter& adapter) {
  ExpertCollector collector(context);
  const bool no_gate = gate_is_up(tensors, context);
  for (const ExpertTensor& t : tensors) {
    if (t.tensor.elements() == 0) continue;
    auto at = *names.match(t.path.rest);
    if (no_gate && at.projection == Projection::gate) at.projection = Projection::up;
    check_expert_count(t, t.tensor.dim(0));
    collector.add_all(t, at.projection, t.tensor.unstack(), t.tensor.dim(0) == 1,
                      pattern_path(t, at.projection, context.config));
  }
  collector.finish(adapter);
}

Scaling uniform_scaling(const ExpertKey& key, const ExpertPair& pair, int64_t experts,
                        std::string_view holder) {
  const Scaling& first = pair.scaling_of(0);
  for (int64_t e = 1; e < experts; ++e)
    if (pair.a.has(e) && pair.scaling_of(e).value() != first.value())
      throw Error(fmt::format("layer {} {}", key.layer, projection_name(key.projection)),
                  fmt::format("experts 0 and {} have the scales {} and {}; {} has one", e,
                              first.value(), pair.scaling_of(e).value(), holder),
                  {"use ", Option::to, " peft-linear"});
  return first.with_rank(max_rank(pair));
}

WrittenExperts write_stacked(const NamePattern& names, const WriteContext& context, bool outer) {
  WrittenExperts out;
  const int64_t experts = context.adapter.expert_count;
  for (const auto& [key, pair] : context.adapter.experts) {
    const std::string stem = written_stem(context, Form::hub, key.layer);
    const Scaling scaling = uniform_scaling(key, pair, experts, "a stacked tensor");
    const int64_t rank = scaling.rank;
    const Projection named = context.options.named(key.projection, context.spec);
    const std::string module = stem + "." + names.format(0, names.word(named));
    for (Side side : {Side::A, Side::B}) {
      const Factor& factor = side == Side::A ? pair.a : pair.b;
      out.tensors[lora_name(module, side)] =
          outer && is_outer(key.projection, side)
              ? outer_part(key, pair, experts, "shared-outer holds one for all").unsqueeze(0)
              : stack_experts(factor, side, experts, rank);
    }
    out.targets.push_back({stem + "." + std::string(projection_name(named)), false, scaling});
  }
  return out;
}

}  // namespace moelora
