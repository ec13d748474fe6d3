// One 2-D pair an expert, gate and up in one matrix. Rows are [gate; up], but for the plural names that
// Unsloth gives the linearised gpt-oss experts of its 4-bit models: those keep gpt-oss' interleaving.

#include <algorithm>

#include "lib/adapter/expert_collector.h"
#include "lib/adapter/gate_up.h"
#include "lib/adapter/layout.h"

namespace moelora {
namespace {

const NamePattern& names() {
  static const NamePattern kNames(
      "{expert}.{proj}", {{Projection::gate_up, "gate_up_proj"}, {Projection::down, "down_proj"}});
  return kNames;
}

const NamePattern& plural_names() {
  static const NamePattern kNames(
      "{proj}.{expert}", {{Projection::gate_up, "gate_up_projs"}, {Projection::down, "down_projs"}});
  return kNames;
}

std::optional<NamePattern::At> match(const ExpertTensor& t) {
  const auto at = names().match(t.path.rest);
  return at ? at : plural_names().match(t.path.rest);
}

Claim claim(const ExpertTensor& t) {
  if (t.tensor.rank() != 2) return Claim::no;
  if (plural_names().match(t.path.rest)) return Claim::sure;
  const auto at = names().match(t.path.rest);
  if (!at) return Claim::no;
  return at->projection == Projection::gate_up ? Claim::sure : Claim::possible;
}

void read(std::span<const ExpertTensor> tensors, const ReadContext& context, Adapter& adapter) {
  ExpertCollector collector(context);
  for (const ExpertTensor& t : tensors) {
    const auto at = *match(t);
    collector.add(t, at.projection, *at.expert, t.tensor,
                  layer_path(t.path.stem, t.path.layer) + "." + t.path.rest);
  }
  collector.finish(adapter);
  const bool plural = std::any_of(tensors.begin(), tensors.end(), [](const ExpertTensor& t) {
    return plural_names().match(t.path.rest).has_value();
  });
  adapter.gate_up_order = plural ? GateUpOrder::interleaved : GateUpOrder::halves;
}

WrittenExperts write(const WriteContext& context) {
  WrittenExperts out;
  for (const auto& [key, pair] : context.adapter.experts) {
    const std::string stem = written_stem(context, Form::hub, key.layer);
    for (int64_t e = 0; e < context.adapter.expert_count; ++e) {
      if (!pair.a.has(e)) continue;
      const std::string module = stem + "." + names().format(e, projection_name(key.projection));
      out.tensors[lora_name(module, Side::A)] = pair.a.at(e);
      out.tensors[lora_name(module, Side::B)] = pair.b.at(e);
      out.targets.push_back({module, false, pair.scaling_of(e)});
    }
  }
  return out;
}

}  // namespace

extern const Layout linear_fused;
const Layout linear_fused = {
    .id = "linear-fused",
    .summary = "one pair an expert, gate and up in one matrix",
    .names = "{e}.{gate_up_proj|down_proj}; reads {gate_up_projs|down_projs}.{e} too",
    .shapes = "A [r, in], B [2I, r]: gate rows, then up rows",
    .sources = "ms-swift, OpenPipe ART; Unsloth bnb-4bit gpt-oss (plural names, interleaved rows)",
    .fused = true,
    .form = Form::hub,
    .gate_up_order = GateUpOrder::halves,
    .claim = claim,
    .read = read,
    .write = write,
};

}  // namespace moelora
