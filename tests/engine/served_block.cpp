#include "tests/engine/served_block.h"

#include "lib/base/cast.h"

namespace moelora::test {

size_t put_block(const ServedBlock& block, Matrix& delta) {
  const std::vector<double> a = read_double(block.a), b = read_double(block.b);
  const int64_t rank = block.a.dim(0), in = block.a.dim(1), out = block.b.dim(0);
  size_t conflicts = 0;
  for (int64_t i = 0; i < out; ++i)
    for (int64_t j = 0; j < in; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < rank; ++k)
        sum += b[static_cast<size_t>(i * rank + k)] * a[static_cast<size_t>(k * in + j)];
      double& at = delta.at(block.out_first + i * block.out_step, block.in_first + j);
      conflicts += at != 0 && at != block.scale * sum;
      at = block.scale * sum;
    }
  return conflicts;
}

}  // namespace moelora::test
