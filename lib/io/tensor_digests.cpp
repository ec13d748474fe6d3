#include "lib/io/tensor_digests.h"

#include <vector>

#include "lib/io/evaluate.h"

namespace moelora {

std::map<std::string, std::string> digest_tensors(const TensorMap& tensors, int threads) {
  std::vector<Tensor> list;
  std::vector<Place> places;
  std::map<std::string, std::string> out;
  uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    list.push_back(tensor);
    places.push_back({0, offset});
    offset += tensor.bytes();
    out[name];
  }
  EvaluateOptions options;
  options.threads = threads;
  const auto digests = evaluate_tensors(std::move(list), places, options,
                                        [](size_t, uint64_t, std::span<const std::byte>) {});
  size_t next = 0;
  for (auto& entry : out) entry.second = digests[next++];
  return out;
}

}  // namespace moelora
