#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "lib/base/arena.h"
#include "lib/base/tensor.h"
#include "lib/io/evaluate.h"

namespace moelora {

// Tensors that are read into memory together, each source byte once where it can be: factors of
// neighbouring experts lie among each other in a stacked file.
class TensorBatch {
 public:
  // The tensor's number, for at(). The tensor is kept by reference. A recipe that was among the
  // last ones is not read again: a factor that neighbours share.
  size_t add(const Tensor& tensor);

  uint64_t bytes() const { return bytes_; }
  bool empty() const { return tensors_.empty(); }

  void read(int threads);  // 0: all
  // The values of a tensor, row-major, between read() and clear().
  const std::byte* at(size_t index) const { return values_ + places_[index].offset; }

  void clear();  // keeps its memory

 private:
  std::vector<const Tensor*> tensors_;
  std::vector<Place> places_;
  uint64_t bytes_ = 0;
  Arena memory_;
  const std::byte* values_ = nullptr;
};

// A batch is worth reading from here on where something of one kind ends, and in any case when
// full.
inline constexpr uint64_t kGoodBatch = 24 << 20, kFullBatch = 64 << 20;

}  // namespace moelora
