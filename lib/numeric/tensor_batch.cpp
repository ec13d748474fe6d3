#include "lib/numeric/tensor_batch.h"

#include <cstring>
#include <span>

namespace moelora {
namespace {

constexpr uint64_t kReadMemory = 32 << 20;
constexpr size_t kLast = 8;

}  // namespace

size_t TensorBatch::add(const Tensor& tensor) {
  for (size_t i = tensors_.size(); i-- > 0 && tensors_.size() - i <= kLast;)
    if (tensors_[i]->same_recipe(tensor)) return i;
  tensors_.push_back(&tensor);
  places_.push_back({0, bytes_});
  bytes_ += (tensor.bytes() + 7) / 8 * 8;
  return tensors_.size() - 1;
}

void TensorBatch::read(int threads) {
  std::byte* values = memory_.take(bytes_).data();
  values_ = values;
  EvaluateOptions options;
  options.threads = threads;
  options.memory = kReadMemory;
  options.digests = false;
  evaluate_tensors(tensors_, places_, options,
                   [&](size_t, uint64_t offset, std::span<const std::byte> bytes) {
                     std::memcpy(values + offset, bytes.data(), bytes.size());
                   });
}

void TensorBatch::clear() {
  tensors_.clear();
  places_.clear();
  bytes_ = 0;
}

}  // namespace moelora
