#pragma once

#include <cstdint>

namespace moelora::sglang {

// One process of the server. Attention, dense layers and the vocabulary are split over all `tp`
// ranks; the experts over `ep` groups (whole experts, contiguous) and within a group over moe_tp.
struct Rank {
  int64_t tp = 1, tp_rank = 0;
  int64_t ep = 1, ep_rank = 0;
  int64_t moe_tp = 1, moe_tp_rank = 0;
};

inline Rank rank_of(int64_t tp, int64_t ep, int64_t index) {
  const int64_t moe_tp = tp / ep;
  return {tp, index, ep, index / moe_tp, moe_tp, index % moe_tp};
}

}  // namespace moelora::sglang
