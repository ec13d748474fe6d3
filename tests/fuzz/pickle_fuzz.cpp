#include "lib/io/torch/parse_pickle.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace moelora;

// A tensor's first and last element lie within its storage.
void require_inside(const Pickle& pickle, const PickledTensor& tensor) {
  const PickledStorage& storage = pickle.storages.at(tensor.storage);
  const int64_t held = storage.elements / (storage.untyped ? dtype_bytes(tensor.dtype) : 1);
  require(tensor.shape.size() == tensor.stride.size() && tensor.shape.size() <= kMaxPickleRank);
  require(tensor.offset >= 0 && tensor.offset <= held);
  long double last = static_cast<long double>(tensor.offset);  // cannot wrap
  for (size_t d = 0; d < tensor.shape.size(); ++d) {
    require(tensor.shape[d] >= 0 && tensor.stride[d] >= 0);
    if (tensor.shape[d] == 0) return;
    last +=
        static_cast<long double>(tensor.shape[d] - 1) * static_cast<long double>(tensor.stride[d]);
  }
  require(last < static_cast<long double>(held));
}

// Whatever a value refers to is there, and no path is longer than the limit.
void walk(const Pickle& pickle, const PickleValue& value, int depth, int& budget) {
  using Kind = PickleValue::Kind;
  if (budget-- <= 0) return;
  require(depth <= kMaxPickleDepth && !describe(pickle, value).empty());
  if (value.kind == Kind::tuple) {
    const PickleTuple run = pickle.tuples.at(value.index());
    for (size_t i = 0; i < run.count; ++i)
      walk(pickle, pickle.cells.at(run.begin + i), depth + 1, budget);
  }
  if (value.kind == Kind::list)
    for (const PickleValue& item : pickle.lists.at(value.index()).items)
      walk(pickle, item, depth + 1, budget);
  if (value.kind == Kind::dict)
    for (const auto& [key, item] : pickle.dicts.at(value.index()).items) {
      require(key.kind == Kind::text || key.kind == Kind::integer);
      walk(pickle, item, depth + 1, budget);
    }
}

}  // namespace

void fuzz(std::string_view input) {
  const Pickle pickle = parse_pickle(input, "f");
  for (const PickledStorage& storage : pickle.storages) require(storage.elements >= 0);
  for (const PickledTensor& tensor : pickle.tensors) require_inside(pickle, tensor);
  int budget = 10'000;
  walk(pickle, pickle.root, 0, budget);
}
