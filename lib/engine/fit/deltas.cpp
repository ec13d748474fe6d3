#include "lib/engine/fit/deltas.h"

#include <fmt/format.h>

#include <cmath>
#include <map>
#include <numeric>

#include "lib/adapter/tensor_name.h"
#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/base/parallel.h"

namespace moelora {
namespace {

void check(const EmbeddingPair& pair, const Tensor& a, const Tensor& b) {
  if (a.rank() != 2 || b.rank() != 2 || a.dim(0) != b.dim(1) || a.dim(0) != pair.scaling.rank)
    throw Error(pair.a, fmt::format("{} and {} of {} do not make a pair of rank {}", to_string(a.shape()),
                                    pair.b, to_string(b.shape()), pair.scaling.rank));
}

// [r, r]: inner products of the rows of a [r, n] matrix.
std::vector<double> gram(const Tensor& rows) {
  const std::vector<double> m = read_double(rows);
  const auto r = static_cast<size_t>(rows.dim(0)), n = static_cast<size_t>(rows.dim(1));
  std::vector<double> out(r * r);
  for (size_t i = 0; i < r; ++i)
    for (size_t j = 0; j <= i; ++j) {
      const double* a = m.data() + i * n;
      const double* b = m.data() + j * n;
      out[i * r + j] = out[j * r + i] = std::inner_product(a, a + n, b, 0.0);
    }
  return out;
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

double delta_norm(const Delta& delta) {
  const std::vector<double> a = gram(delta.a), b = gram(delta.b.transpose(0, 1));
  const double trace = std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
  return std::fabs(delta.scale) * std::sqrt(std::max(trace, 0.0));
}

double delta_norm(const std::vector<Delta>& deltas, int threads) {
  std::vector<double> norms(deltas.size());
  parallel_for(static_cast<int64_t>(deltas.size()), threads, [&](int64_t i, int) {
    norms[static_cast<size_t>(i)] = delta_norm(deltas[static_cast<size_t>(i)]);
  });
  return std::sqrt(std::inner_product(norms.begin(), norms.end(), norms.begin(), 0.0));
}

std::vector<Delta> expert_deltas(const Adapter& adapter) {
  std::vector<Delta> out;
  for (const auto& entry : adapter.experts)
    for (int64_t e = 0; e < adapter.expert_count; ++e)
      if (entry.second.a.has(e))
        out.push_back(
            {entry.second.a.at(e), entry.second.b.at(e), entry.second.scaling_of(e).value()});
  return out;
}

}  // namespace moelora
