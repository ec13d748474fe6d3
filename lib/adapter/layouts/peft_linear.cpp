// One 2-D pair an expert and projection, as PEFT saves LoRA on numbered expert Linears.

#include "lib/adapter/expert_collector.h"
#include "lib/adapter/layout.h"

namespace moelora {
namespace {

const NamePattern& names() {
  static const NamePattern kNames("{expert}.{proj}", {{Projection::gate, "gate_proj"},
                                                      {Projection::up, "up_proj"},
                                                      {Projection::down, "down_proj"},
                                                      {Projection::gate, "w1"},
                                                      {Projection::up, "w3"},
                                                      {Projection::down, "w2"}});
  return kNames;
}

Claim claim(const ExpertTensor& t) {
  return names().match(t.path.rest) && t.tensor.rank() == 2 ? Claim::sure : Claim::no;
}

void read(std::span<const ExpertTensor> tensors, const ReadContext& context, Adapter& adapter) {
  ExpertCollector collector(context);
  for (const ExpertTensor& t : tensors) {
    const auto at = *names().match(t.path.rest);
    collector.add(t, at.projection, *at.expert, t.tensor,
                  layer_path(t.path.stem, t.path.layer) + "." + t.path.rest);
  }
  collector.finish(adapter);
}

std::string_view word(const WriteContext& context, Projection projection) {
  if (context.spec == nullptr || context.options.canonical_names || !context.spec->hub.numbered)
    return names().word(projection);
  const ExpertStorage& hub = context.spec->hub;
  return projection == Projection::gate ? hub.gate : projection == Projection::up ? hub.up : hub.down;
}

WrittenExperts write(const WriteContext& context) {
  WrittenExperts out;
  for (const auto& [key, pair] : context.adapter.experts) {
    const std::string stem = written_stem(context, Form::hub, key.layer);
    for (int64_t e = 0; e < context.adapter.expert_count; ++e) {
      if (!pair.a.has(e)) continue;
      const std::string module = stem + "." + names().format(e, word(context, key.projection));
      out.tensors[lora_name(module, Side::A)] = pair.a.at(e);
      out.tensors[lora_name(module, Side::B)] = pair.b.at(e);
      out.targets.push_back({module, false, pair.scaling_of(e)});
    }
  }
  return out;
}

}  // namespace

extern const Layout peft_linear;
const Layout peft_linear = {
    .id = "peft-linear",
    .summary = "one pair an expert and projection, in the family's own spelling",
    .names = "{e}.{gate_proj|up_proj|down_proj} or {e}.{w1|w3|w2}",
    .shapes = "A [r, in], B [out, r]",
    .sources = "PEFT on transformers 4, tinker-cookbook build_lora_adapter, ms-swift, prime-rl",
    .fused = false,
    .form = Form::hub,
    .gate_up_order = GateUpOrder::halves,
    .claim = claim,
    .read = read,
    .write = write,
};

}  // namespace moelora
