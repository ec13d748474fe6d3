// One 3-D tensor per side, experts first, gate and up in one matrix: rows [gate; up] for every
// family, gpt-oss included, since SGLang cuts lora_B in halves and interleaves itself (facts:
// layers.py).

#include "lib/adapter/expert_factors.h"

namespace moelora {
namespace {

constexpr NamePattern kNames("{proj}", kJoinedWords);

Claim claim(const ExpertTensor& t) {
  const auto at = kNames.match(t.path.rest);
  if (!at || t.tensor.rank() != 3) return Claim::no;
  return at->projection == Projection::gate_up ? Claim::sure : Claim::possible;
}

void read(std::span<const ExpertTensor> tensors, const ReadContext& context, Adapter& adapter) {
  read_stacked(kNames, tensors, context, adapter);
  adapter.gate_up_order = GateUpOrder::halves;
}

WrittenExperts write(const WriteContext& context) {
  return write_stacked(kNames, context, context.options.shared_outer);
}

}  // namespace

const Layout layouts::stacked_fused = {
    .id = "stacked-fused",
    .summary = "3-D tensors, gate and up in one matrix",
    .names = "{gate_up_proj|down_proj}",
    .shapes = "A [E, r, in], B [E, 2I, r]: gate rows, then up rows",
    .sources = "SGLang packed experts, Megatron-Bridge stream for fused bases",
    .fused = true,
    .form = Form::hub,
    .gate_up_order = GateUpOrder::halves,
    .claim = claim,
    .read = read,
    .write = write,
};

}  // namespace moelora
