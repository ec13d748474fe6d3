#include "lib/compare/batches.h"

#include <cstring>

#include "lib/base/arena.h"
#include "lib/base/parallel.h"
#include "lib/io/evaluate.h"

namespace moelora {
namespace {

constexpr uint64_t kReadMemory = 32 << 20;
// A batch is worth reading from the first on where a projection of a layer ends, and in any case
// when full.
constexpr uint64_t kGoodBatch = 24 << 20, kFullBatch = 64 << 20;
constexpr size_t kLast = 8;

class Batch {
 public:
  uint64_t bytes() const { return bytes_; }

  void add(size_t place, const PlaceFactors& factors) {
    Item item{place, {}};
    for (const Tensor* tensor : factors.factors) item.factors.push_back(hold(*tensor));
    items_.push_back(std::move(item));
  }

  void measure(int threads, const MeasurePlace& measure) {
    const std::byte* values = read(threads);
    parallel_for(static_cast<int64_t>(items_.size()), threads, [&](int64_t i, int) {
      const Item& item = items_[static_cast<size_t>(i)];
      std::vector<const std::byte*> at;
      for (const size_t factor : item.factors) at.push_back(values + places_[factor].offset);
      measure(item.place, at);
    });
    items_.clear();
    tensors_.clear();
    places_.clear();
    bytes_ = 0;
  }

 private:
  struct Item {
    size_t place;
    std::vector<size_t> factors;
  };

  // A recipe that was among the last ones is not read again: a factor that neighbours share.
  size_t hold(const Tensor& tensor) {
    for (size_t i = tensors_.size(); i-- > 0 && tensors_.size() - i <= kLast;)
      if (tensors_[i]->same_recipe(tensor)) return i;
    tensors_.push_back(&tensor);
    places_.push_back({0, bytes_});
    bytes_ += (tensor.bytes() + 7) / 8 * 8;
    return tensors_.size() - 1;
  }

  const std::byte* read(int threads) {
    std::byte* values = memory_.take(bytes_).data();
    EvaluateOptions options;
    options.threads = threads;
    options.memory = kReadMemory;
    options.digests = false;
    evaluate_tensors(tensors_, places_, options,
                     [&](size_t, uint64_t offset, std::span<const std::byte> bytes) {
                       std::memcpy(values + offset, bytes.data(), bytes.size());
                     });
    return values;
  }

  std::vector<Item> items_;
  std::vector<const Tensor*> tensors_;
  std::vector<Place> places_;
  uint64_t bytes_ = 0;
  Arena memory_;
};

}  // namespace

void measure_in_batches(std::span<const PlaceFactors> places, int threads,
                        const MeasurePlace& measure,
                        const std::function<void(uint64_t bytes)>& read) {
  Batch batch;
  const auto finish = [&] {
    const uint64_t bytes = batch.bytes();
    batch.measure(threads, measure);
    if (read) read(bytes);
  };
  for (size_t i = 0; i < places.size(); ++i) {
    const DeltaKey& key = places[i].key;
    const bool next =
        i > 0 && (places[i - 1].key.layer != key.layer || places[i - 1].key.module != key.module);
    if (batch.bytes() >= (next ? kGoodBatch : kFullBatch)) finish();
    batch.add(i, places[i]);
  }
  finish();
}

}  // namespace moelora
