#include "lib/engine/fit/deltas.h"

#include <fmt/format.h>

#include <map>

#include "lib/adapter/tensor_name.h"
#include "lib/base/error.h"

namespace moelora {
namespace {

void check(const EmbeddingPair& pair, const Tensor& a, const Tensor& b) {
  if (a.rank() != 2 || b.rank() != 2 || a.dim(0) != b.dim(1) || a.dim(0) != pair.scaling.rank)
    throw Error(pair.a,
                fmt::format("{} and {} of {} do not make a pair of rank {}", to_string(a.shape()),
                            pair.b, to_string(b.shape()), pair.scaling.rank));
}

}  // namespace

std::vector<EmbeddingPair> embedding_pairs(const Adapter& adapter) {
  std::map<std::string, EmbeddingPair> pairs;
  for (const auto& [name, extra] : adapter.extras) {
    if (extra.kind != ExtraKind::embedding_factor) continue;
    const TensorName parsed = parse_tensor_name(name);
    EmbeddingPair& pair = pairs[parsed.module];
    (parsed.part == TensorPart::embedding_a ? pair.a : pair.b) = name;
  }
  std::vector<EmbeddingPair> out;
  for (auto& [module, pair] : pairs) {
    if (pair.a.empty() || pair.b.empty())
      throw Error(pair.a.empty() ? pair.b : pair.a, "is half of an embedding's pair",
                  "the file is incomplete: save the adapter again");
    pair.module = module;
    pair.scaling = adapter.config.scaling(module);
    check(pair, adapter.extras.at(pair.a).tensor, adapter.extras.at(pair.b).tensor);
    out.push_back(std::move(pair));
  }
  return out;
}

Deltas all_deltas(const Adapter& adapter) {
  Deltas out = deltas_of(adapter);
  for (const EmbeddingPair& pair : embedding_pairs(adapter))
    out[{pair.module, -1, -1}] = {adapter.extras.at(pair.a).tensor,
                                  adapter.extras.at(pair.b).tensor, pair.scaling.value()};
  return out;
}

}  // namespace moelora
