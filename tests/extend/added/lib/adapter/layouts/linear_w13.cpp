// An example of a layout: one 2-D pair per expert, gate and up joined as w13, which is what vLLM
// calls the joined Linear of its experts.

#include "lib/adapter/expert_factors.h"
#include "lib/adapter/layout.h"

namespace moelora {
namespace {

constexpr NamePattern::Word kWords[] = {{Projection::gate_up, "w13"}, {Projection::down, "w2"}};
constexpr NamePattern kNames("{expert}.{proj}", kWords);

Claim claim(const ExpertTensor& t) {
  const auto at = kNames.match(t.path.rest);
  if (!at || t.tensor.rank() != 2) return Claim::no;
  return at->projection == Projection::gate_up ? Claim::sure : Claim::possible;
}

void read(std::span<const ExpertTensor> tensors, const ReadContext& context, Adapter& adapter) {
  read_numbered(kNames, tensors, context, adapter);
  adapter.gate_up_order = GateUpOrder::halves;
}

WrittenExperts write(const WriteContext& context) {
  return write_numbered(context, [](int64_t expert, Projection projection) {
    return kNames.format(expert, kNames.word(projection));
  });
}

}  // namespace

const Layout layouts::linear_w13 = {
    .id = "linear-w13",
    .summary = "one pair per expert, gate and up in one matrix called w13",
    .names = "{e}.{w13|w2}",
    .shapes = "A [r, in], B [2I, r]: gate rows, then up rows",
    .sources = "made for this test",
    .fused = true,
    .numbered = true,
    .form = Form::hub,
    .gate_up_order = GateUpOrder::halves,
    .claim = claim,
    .read = read,
    .write = write,
};

}  // namespace moelora
