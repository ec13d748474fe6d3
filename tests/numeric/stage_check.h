#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "lib/numeric/moe_forward.h"

namespace moelora::test {

// How far one stage of an implementation is from double, computed from the implementation's own
// inputs of that stage: errors of earlier stages do not count.
struct StageError {
  std::string_view stage;  // "input", "base", "rank", "delta", "hidden", "out"
  std::optional<Projection> projection;
  // The largest |found - exact| / bound; above 1 no rounding explains it. The bound, element by
  // element, with u = 2^-23 (truncating tensor cores allowed for) and U = 2^-8:
  //   base, rank   K u (|W| |in| + |b|), K the row's length
  //   delta        (r u + U [s A x is BF16]) |s| |B| |z|
  //   hidden       1.2 |u factor| e_g + |f(g)| e_u + 2^-21 |g| |u factor| + U |h| [h is BF16],
  //                e the rounding of the sums base + delta
  //   out          (K + 4) u scaling sum |w| (|base| + |delta|)
  double worst = 0;
  int64_t pair = 0, column = 0;  // of the worst; a token in "out"
  double relative = 0;           // ||found - exact|| / ||exact||
};

// Every stage that `found` holds, in order. `weights` as the implementation has them;
// x [T, H] as it has it. Where a projection with LoRA has no delta, its base is base + delta.
std::vector<StageError> check_stages(const MoeLayer& layer, const MoeWeights& weights,
                                     const Routing& routing, std::span<const float> x,
                                     const MoeStages<float>& found, const StageRounding& rounding,
                                     int threads = 0);

}  // namespace moelora::test
