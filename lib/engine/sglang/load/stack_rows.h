#pragma once

#include <span>
#include <string>

#include "lib/engine/sglang/load/weights.h"

namespace moelora::sglang {

// torch.cat of staged tensors along `dim` (negative: from the end). On success `error` is empty;
// else it is what torch raises (a RuntimeError), and shape and blocks are not set.
struct Stacked {
  Shape shape;
  std::vector<Block> blocks;
  std::string error;
};
Stacked stack_rows(std::span<const Staged* const> parts, int dim);

// torch.zeros_like: the same shape, no source.
Staged zeros_like(const Staged& other);

// torch's repeat along the rows, in place.
void repeat_rows(Staged& staged, int times);

}  // namespace moelora::sglang
