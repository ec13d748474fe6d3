// One 3-D tensor per projection and side, experts first.

#include "lib/adapter/expert_factors.h"

namespace moelora {
namespace {

constexpr NamePattern kNames("{proj}", kApartWords);

Claim claim(const ExpertTensor& t) {
  if (!kNames.match(t.path.rest)) return Claim::no;
  if (t.tensor.elements() == 0) return Claim::possible;
  return t.tensor.rank() == 3 && t.tensor.dim(0) > 1 ? Claim::sure : Claim::no;
}

void read(std::span<const ExpertTensor> tensors, const ReadContext& context, Adapter& adapter) {
  read_stacked(kNames, tensors, context, adapter);
}

WrittenExperts write(const WriteContext& context) { return write_stacked(kNames, context, false); }

}  // namespace

const Layout layouts::stacked = {
    .id = "stacked",
    .summary = "one 3-D tensor per projection, experts first",
    .names = "{gate_proj|up_proj|down_proj}; reads {w1|w3|w2} too",
    .shapes = "A [E, r, in], B [E, out, r]",
    .sources = "SGLang normalization (lora/lora.py), SkyRL",
    .form = Form::hub,
    .gate_up_order = GateUpOrder::halves,
    .claim = claim,
    .read = read,
    .write = write,
};

}  // namespace moelora
