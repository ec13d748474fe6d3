#pragma once

#include <cstdint>

namespace moelora {

// What PEFT multiplies B·A with: alpha / r, or alpha / sqrt(r) with rsLoRA. `rank` is the rank of
// one expert, never E * r.
struct Scaling {
  int64_t rank = 0;
  double alpha = 0;
  bool rslora = false;

  double value() const;

  // The scaling of another rank with exactly this value(): alpha is chosen so that the division
  // PEFT does gives the same double. Throws Error when no double does.
  Scaling with_rank(int64_t new_rank) const;

  // The scaling without rsLoRA of this rank and value: alpha = value * rank, or a neighbour that
  // gives the value exactly where one does.
  static Scaling plain(int64_t rank, double value);

  friend bool operator==(const Scaling&, const Scaling&) = default;
};

}  // namespace moelora
