#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "lib/adapter/delta_pair.h"
#include "lib/engine/buffers.h"

namespace moelora {

// What a server computes of one delta, against what the adapter means. All norms are Frobenius
// norms, got from Gram matrices of the factors in double: with m the meant delta and j the served
// blocks, which lie at places of their own, |sum j - m|^2 = |m|^2 + sum(|j|^2 - 2 <m, j>); no delta
// is ever formed. What no block covers is zero there, rows or columns of a block beyond the
// adapter's are of a delta that it does not mean.
struct ServedDelta {
  DeltaKey key;  // dense modules as the base's memory form spells them
  // Every element of the served factors is the meant one but for its own roundings, and they cover
  // the delta: then nothing else is computed, and the norms are 0.
  bool same = false;
  double meant = 0, served = 0;  // |m|, |sum j|
  double apart = 0;              // |sum j - m|; not finite where the server's values are not
  // What rounding explains of `apart`: (uA + uB + uS) max(|m|, sqrt(sum_k |s b_k|^2 |a_k|^2)),
  // with b_k a_k the delta's rank-one parts and u the unit roundoff of the server's type (BF16
  // 2^-8) for a factor whose own type holds more, and for a scale that the server multiplies into
  // a factor, unless that only changes exponents. It holds where the roundings of the factors'
  // elements are independent of each other or all the same. A little for the sums.
  double rounding = 0;
  std::string_view defect = "";  // ServedBlock::defect of its blocks
  bool measured = true;  // false: the adapter's own values are not finite or of no float type

  double relative() const;  // apart / meant; infinite where nothing was meant
  bool is_wrong() const;    // measured, and more than rounding
  bool is_lost() const;     // wrong, and the server adds nothing
};

// Every delta that is meant or that the server computes, by key. `meant` is what meant_deltas()
// gives. `blocks`: of all ranks; where several ranks have a block of one place, the first counts.
std::vector<ServedDelta> served_differences(const Deltas& meant, const ModelSpec& spec,
                                            std::span<const ServedBlock> blocks, int threads);

}  // namespace moelora
