#pragma once

#include <functional>

#include "lib/adapter/layout.h"

namespace moelora {

// What the two layouts with one 2-D pair per expert have in common: {stem}.{rest}.lora_A.weight
// with an expert number in the rest.

void read_numbered(const NamePattern& names, std::span<const ExpertTensor> tensors,
                   const ReadContext& context, Adapter& adapter);

// `rest` spells one expert's projection: "7.gate_proj". Experts without factors are left out.
WrittenExperts write_numbered(const WriteContext& context,
                              const std::function<std::string(int64_t expert, Projection)>& rest);

// What the three layouts with 3-D tensors have in common: A [E or 1, r, in], B [E or 1, out, r] per
// projection; a leading 1 is a factor that all experts share.

void read_stacked(const NamePattern& names, std::span<const ExpertTensor> tensors,
                  const ReadContext& context, Adapter& adapter);

// `outer`: gate/up A and down B are written with a leading 1; throws Error where their experts
// differ. Otherwise every factor is written for all experts.
WrittenExperts write_stacked(const NamePattern& names, const WriteContext& context, bool outer);

// Whether a side is the outer one: gate and up's A, down's B.
bool is_outer(Projection projection, Side side);

// The outer factor that all experts share. Throws Error where it differs between experts, or one
// has none; `holder` says why there is one only ("shared-outer holds one for all").
const Tensor& outer_part(const ExpertKey& key, const ExpertPair& pair, int64_t experts,
                         std::string_view holder);

// The scaling of all experts of a pair at its largest rank. Throws Error where their scales differ:
// `holder` ("a stacked tensor") has one.
Scaling uniform_scaling(const ExpertKey& key, const ExpertPair& pair, int64_t experts,
                        std::string_view holder);

}  // namespace moelora
