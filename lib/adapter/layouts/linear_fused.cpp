// One 2-D pair per expert, gate and up in one matrix. Rows are [gate; up], but for the plural names
// that Unsloth gives the linearised gpt-oss experts of its 4-bit models: those keep gpt-oss'
// interleaving.

#include <fmt/format.h>

#include "lib/adapter/expert_factors.h"
#include "lib/adapter/layout.h"
#include "lib/base/error.h"

namespace moelora {
namespace {

const NamePattern& names() {
  static const NamePattern kNames(
      "{expert}.{proj}", {{Projection::gate_up, "gate_up_proj"}, {Projection::down, "down_proj"}});
  return kNames;
}

const NamePattern& plural_names() {
  static const NamePattern kNames("{proj}.{expert}", {{Projection::gate_up, "gate_up_projs"},
                                                      {Projection::down, "down_projs"}});
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
  const auto is_plural = [](const ExpertTensor& t) {
    return plural_names().match(t.path.rest).has_value();
  };
  const bool plural = is_plural(tensors.front());
  for (const ExpertTensor& t : tensors)
    if (is_plural(t) != plural)
      throw Error(
          t.name,
          fmt::format("mixes {{e}}.gate_up_proj and gate_up_projs.{{e}} with {}, whose rows "
                      "are in another order",
                      tensors.front().name),
          "split the file");
  read_numbered(match, tensors, context, adapter);
  adapter.gate_up_order = plural ? GateUpOrder::interleaved : GateUpOrder::halves;
}

WrittenExperts write(const WriteContext& context) {
  return write_numbered(context, [](int64_t expert, Projection projection) {
    return names().format(expert, projection_name(projection));
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
