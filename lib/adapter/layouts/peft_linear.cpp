// One 2-D pair per expert and projection, as PEFT saves LoRA on numbered expert Linears.

#include <fmt/core.h>

#include <algorithm>

#include "lib/adapter/expert_factors.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

constexpr NamePattern kNames("{expert}.{proj}", kNumberedWords);

Claim claim(const ExpertTensor& t) {
  return kNames.match(t.path.rest) && t.tensor.rank() == 2 ? Claim::sure : Claim::no;
}

std::string_view own_word(const ExpertStorage& storage, Projection projection) {
  return projection == Projection::gate ? storage.gate
         : projection == Projection::up ? storage.up
                                        : storage.down;
}

// Grok-1's words may be other projections in a family of one's own ("linear_1" for gate).
void check_words(std::span<const ExpertTensor> tensors, const ReadContext& context) {
  if (context.spec == nullptr) return;
  const ExpertStorage own = per_expert_storage(*context.spec);
  for (const ExpertTensor& t : tensors) {
    const std::string_view word = leaf_of(t.path.rest);
    const Projection meant = kNames.match(t.path.rest)->projection;
    const bool anywhere = std::any_of(std::begin(kApartWords), std::end(kApartWords),
                                      [&](const auto& known) { return known.text == word; });
    if (anywhere || own_word(own, meant) == word) continue;
    throw Error(t.name,
                fmt::format("\"{}\" is {} in Grok-1, which the experts of this base model call "
                            "{}",
                            word, projection_name(meant), in_quotes(own_word(own, meant))),
                check_base());
  }
}

void read(std::span<const ExpertTensor> tensors, const ReadContext& context, Adapter& adapter) {
  check_words(tensors, context);
  read_numbered(kNames, tensors, context, adapter);
}

std::string_view word(const WriteContext& context, Projection projection) {
  const bool numbered = context.spec != nullptr && context.spec->hub.numbered;
  if (context.options.canonical_names || (!numbered && !context.options.short_names))
    return kNames.word(projection);
  if (!numbered)
    return projection == Projection::gate ? "w1" : projection == Projection::up ? "w3" : "w2";
  return own_word(context.spec->hub, projection);
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
