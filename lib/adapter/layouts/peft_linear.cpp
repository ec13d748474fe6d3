// One 2-D pair per expert and projection, as PEFT saves LoRA on numbered expert Linears.

#include "lib/adapter/expert_factors.h"
#include "lib/adapter/tensor_name.h"

namespace moelora {
namespace {

constexpr NamePattern kNames("{expert}.{proj}", kNumberedWords);

Claim claim(const ExpertTensor& t) {
  return kNames.match(t.path.rest) && t.tensor.rank() == 2 ? Claim::sure : Claim::no;
}

void read(std::span<const ExpertTensor> tensors, const ReadContext& context, Adapter& adapter) {
  read_numbered(kNames, tensors, context, adapter);
}

std::string_view word(const WriteContext& context, Projection projection) {
  const bool numbered = context.spec != nullptr && context.spec->hub.numbered;
  if (context.options.canonical_names || (!numbered && !context.options.short_names))
    return kNames.word(projection);
  if (!numbered)
    return projection == Projection::gate ? "w1" : projection == Projection::up ? "w3" : "w2";
  const ExpertStorage& hub = context.spec->hub;
  return projection == Projection::gate ? hub.gate
         : projection == Projection::up ? hub.up
                                        : hub.down;
}

WrittenExperts write(const WriteContext& context) {
  return write_numbered(context, [&](int64_t expert, Projection projection) {
    return kNames.format(expert, word(context, context.options.named(projection, context.spec)));
  });
}

}  // namespace

const Layout layouts::peft_linear = {
    .id = "peft-linear",
    .summary = "one pair per expert and projection, in the family's own spelling",
    .names =
        "{e}.{gate_proj|up_proj|down_proj} or {e}.{w1|w3|w2}; of Grok-1 "
        "{e}.{linear|linear_v|linear_1}",
    .shapes = "A [r, in], B [out, r]",
    .sources = "PEFT on transformers 4, tinker-cookbook build_lora_adapter, ms-swift, prime-rl",
    .numbered = true,
    .form = Form::hub,
    .gate_up_order = GateUpOrder::halves,
    .claim = claim,
    .read = read,
    .write = write,
};

}  // namespace moelora
