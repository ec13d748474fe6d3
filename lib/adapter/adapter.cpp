#include "lib/adapter/adapter.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>

#include "lib/base/error.h"
#include "lib/base/parallel.h"

namespace moelora {

char side_letter(Side side) { return side == Side::A ? 'A' : 'B'; }

std::string_view extra_kind_name(ExtraKind kind) {
  constexpr std::array<std::string_view, 6> kNames = {
      "embedding factor", "base weight", "saved module", "LoRA bias", "DoRA magnitude", "other"};
  return kNames[static_cast<size_t>(kind)];
}

void ExpertPair::merge_scaling() {
  const auto other = std::adjacent_find(scaling.begin(), scaling.end(), std::not_equal_to<>());
  if (other == scaling.end()) scaling.resize(1);
}

std::string Adapter::stem(int layer) const { return with_layer(expert_stem, layer); }

bool Adapter::has(Projection projection) const {
  return std::any_of(experts.begin(), experts.end(),
                     [&](const auto& entry) { return entry.first.projection == projection; });
}

int64_t factor_rank(const Tensor& part, Side side) { return part.dim(side == Side::A ? 0 : 1); }

int64_t max_rank(const ExpertPair& pair) {
  int64_t rank = 0;
  for (const Tensor& part : pair.a.parts)
    if (part.rank() != 0) rank = std::max(rank, factor_rank(part, Side::A));
  return rank;
}

namespace {

const Tensor& first_present(const Factor& factor) {
  for (const Tensor& part : factor.parts)
    if (part.rank() != 0) return part;
  throw Error("factor", "no expert has one");
}

}  // namespace

Adapter::Adapter() = default;
Adapter::Adapter(const Adapter&) = default;
Adapter::Adapter(Adapter&&) noexcept = default;
Adapter& Adapter::operator=(const Adapter&) = default;
Adapter& Adapter::operator=(Adapter&&) noexcept = default;
Adapter::~Adapter() = default;

Tensor pad_rank(const Tensor& part, Side side, int64_t rank) {
  const int dim = side == Side::A ? 0 : 1;
  if (part.dim(dim) == rank) return part;
  Shape rest = part.shape();
  rest[static_cast<size_t>(dim)] = rank - part.dim(dim);
  return Tensor::concat(dim, std::vector{part, Tensor::zeros(part.dtype(), rest)});
}

Tensor stack_experts(const Factor& factor, Side side, int64_t experts, int64_t rank) {
  if (factor.shared)
    return pad_rank(factor.parts.front(), side, rank).unsqueeze(0).broadcast(0, experts);
  const Tensor& model = first_present(factor);
  Shape shape = model.shape();
  shape[side == Side::A ? 0 : 1] = rank;
  const Tensor absent = Tensor::zeros(model.dtype(), shape);
  std::vector<Tensor> parts;
  parts.reserve(static_cast<size_t>(experts));
  for (int64_t e = 0; e < experts; ++e)
    parts.push_back(factor.has(e) ? pad_rank(factor.at(e), side, rank) : absent);
  return Tensor::stack(parts);
}

bool identical(const Tensor& a, const Tensor& b) {
  if (a.dtype() != b.dtype() || a.shape() != b.shape()) return false;
  return a.same_recipe(b) || a.read() == b.read();
}

bool all_identical(std::span<const std::pair<Tensor, Tensor>> pairs, int threads) {
  if (pairs.empty()) return true;
  if (!identical(pairs.front().first, pairs.front().second)) return false;
  std::atomic<bool> same = true;
  parallel_for(static_cast<int64_t>(pairs.size()) - 1, threads, [&](int64_t i, int) {
    const auto& [a, b] = pairs[static_cast<size_t>(i) + 1];
    if (same && !identical(a, b)) same = false;
  });
  return same;
}

}  // namespace moelora
