// One 3-D tensor per projection and side; the outer factors (A of w1 and w3, B of w2) have a
// leading 1: one matrix for all experts.

#include "lib/adapter/expert_factors.h"

namespace moelora {
namespace {

constexpr NamePattern::Word kWords[] = {
    {Projection::gate, "w1"},        {Projection::up, "w3"},      {Projection::down, "w2"},
    {Projection::gate, "gate_proj"}, {Projection::up, "up_proj"}, {Projection::down, "down_proj"}};
constexpr NamePattern kNames("{proj}", kWords);

Claim claim(const ExpertTensor& t) {
  if (!kNames.match(t.path.rest)) return Claim::no;
  if (t.tensor.elements() == 0) return Claim::possible;
  if (t.tensor.rank() != 3) return Claim::no;
  return t.tensor.dim(0) == 1 ? Claim::sure : Claim::possible;
}

void read(std::span<const ExpertTensor> tensors, const ReadContext& context, Adapter& adapter) {
  read_stacked(kNames, tensors, context, adapter);
}

WrittenExperts write(const WriteContext& context) { return write_stacked(kNames, context, true); }

}  // namespace

const Layout layouts::shared_outer = {
    .id = "shared-outer",
    .summary = "3-D tensors whose outer factors are one matrix for all experts",
    .names = "{w1|w3|w2}; reads {gate_proj|up_proj|down_proj} too",
    .shapes = "w1, w3: A [1, r, H], B [E, I, r]; w2: A [E, r, I], B [1, H, r]",
    .sources =
        "Tinker, miles (Inkling), xorl sglang_shared_outer, SGLang --experts-shared-outer-loras",
    .shared_outer = true,
    .form = Form::hub,
    .gate_up_order = GateUpOrder::halves,
    .claim = claim,
    .read = read,
    .write = write,
};

}  // namespace moelora
