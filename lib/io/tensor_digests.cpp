#include "lib/io/tensor_digests.h"

#include <vector>

#include "lib/base/digest.h"
#include "lib/base/parallel.h"

namespace moelora {

std::map<std::string, std::string> digest_tensors(const TensorMap& tensors, int threads) {
  std::map<std::string, std::string> out;
  std::vector<std::pair<const Tensor*, std::string*>> work;
  for (const auto& [name, tensor] : tensors) work.emplace_back(&tensor, &out[name]);
  parallel_for(static_cast<int64_t>(work.size()), threads, [&](int64_t i, int) {
    const auto& [tensor, digest] = work[static_cast<size_t>(i)];
    *digest = digest_hex(tensor->read());
  });
  return out;
}

}  // namespace moelora
