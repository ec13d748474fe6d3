// One 2-D pair per expert, gate and up in one matrix. Rows are [gate; up], but for the plural names
// that Unsloth gives the linearized gpt-oss experts of its 4-bit models: those keep gpt-oss'
// interleaving.

#include <fmt/core.h>

#include "lib/adapter/expert_factors.h"
#include "lib/adapter/layout.h"
#include "lib/base/error.h"

namespace moelora {
namespace {

constexpr NamePattern kNames("{expert}.{proj}", kJoinedWords);
constexpr NamePattern kPluralNames("{proj}.{expert}", kPluralWords);

Claim claim(const ExpertTensor& t) {
  if (t.tensor.rank() != 2) return Claim::no;
  if (kPluralNames.match(t.path.rest)) return Claim::sure;
  const auto at = kNames.match(t.path.rest);
  if (!at) return Claim::no;
  return at->projection == Projection::gate_up ? Claim::sure : Claim::possible;
}

bool is_plural(const ExpertTensor& t) { return kPluralNames.match(t.path.rest).has_value(); }

void read(std::span<const ExpertTensor> tensors, const ReadContext& context, Adapter& adapter) {
  const bool plural = is_plural(tensors.front());
  for (const ExpertTensor& t : tensors)
    if (is_plural(t) != plural)
      throw Error(
          t.name,
          fmt::format("mixes {{e}}.gate_up_proj and gate_up_projs.{{e}} with {}, whose rows "
                      "are in another order",
                      tensors.front().name),
          "split the file");
  read_numbered(plural ? kPluralNames : kNames, tensors, context, adapter);
  adapter.gate_up_order = plural ? GateUpOrder::interleaved : GateUpOrder::halves;
}

WrittenExperts write(const WriteContext& context) {
  return write_numbered(context, [](int64_t expert, Projection projection) {
    return kNames.format(expert, projection_name(projection));
  });
}

}  // namespace

const Layout layouts::linear_fused = {
    .id = "linear-fused",
    .summary = "one pair per expert, gate and up in one matrix",
    .names = "{e}.{gate_up_proj|down_proj}; reads {gate_up_projs|down_projs}.{e} too",
    .shapes = "A [r, in], B [2I, r]: gate rows, then up rows",
    .sources = "ms-swift, OpenPipe ART; Unsloth bnb-4bit gpt-oss (plural names, interleaved rows)",
    .fused = true,
    .numbered = true,
    .form = Form::hub,
    .gate_up_order = GateUpOrder::halves,
    .claim = claim,
    .read = read,
    .write = write,
};

}  // namespace moelora
