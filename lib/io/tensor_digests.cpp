#include "lib/io/tensor_digests.h"

#include <vector>

#include "lib/io/evaluate.h"

namespace moelora {

std::map<std::string, std::string> digest_tensors(const TensorMap& tensors, int threads) {
  std::vector<const Tensor*> list;
  for (const auto& [name, tensor] : tensors) list.push_back(&tensor);
  EvaluateOptions options;
  options.threads = threads;
  std::vector<std::string> digests = evaluate_tensors(list, {}, options, nullptr);
  std::map<std::string, std::string> out;
  for (size_t i = 0; const auto& [name, tensor] : tensors)
    out.emplace_hint(out.end(), name, std::move(digests[i++]));
  return out;
}

}  // namespace moelora
