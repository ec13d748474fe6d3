// Experts with all their parts: vLLM asserts that every expert has every projection, SGLang does
// not apply experts of which only gate and up or only down are adapted. Missing ones are zero.

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "lib/adapter/gate_up.h"
#include "lib/engine/fit/step.h"

namespace moelora::fit {
namespace {

int64_t fill_experts(Factor& factor) {
  const auto held = std::find_if(factor.parts.begin(), factor.parts.end(),
                                 [](const Tensor& part) { return part.rank() != 0; });
  if (factor.shared || held == factor.parts.end()) return 0;
  const Tensor zero = Tensor::zeros(held->dtype(), held->shape());
  int64_t filled = 0;
  for (Tensor& part : factor.parts)
    if (part.rank() == 0) part = zero, ++filled;
  return filled;
}

// One matrix of zeros for all experts.
Factor zeros(DType dtype, const Shape& shape) { return {{Tensor::zeros(dtype, shape)}, true}; }

ExpertPair zero_pair(const ExpertPair& beside, const ModelSpec& spec, Projection projection) {
  const int64_t rank = max_rank(beside);
  const DType dtype = beside.b.parts.front().dtype();
  return {zeros(dtype, {rank, spec.in_dim(projection)}),
          zeros(dtype, {spec.out_dim(projection), rank}),
          {beside.scaling.front()}};
}

std::set<int> expert_layers(const Adapter& adapter) {
  std::set<int> out;
  for (const auto& entry : adapter.experts) out.insert(entry.first.layer);
  return out;
}

int64_t add_projections(FitContext& context, std::set<std::string>& names) {
  std::vector<Projection> wanted{Projection::up, Projection::down};
  if (context.spec.gated) wanted.push_back(Projection::gate);
  int64_t added = 0;
  auto& experts = context.adapter.experts;
  for (int layer : expert_layers(context.adapter)) {
    const ExpertPair beside = experts.lower_bound({layer, Projection::gate})->second;
    for (Projection projection : wanted) {
      if (experts.count({layer, projection}) != 0) continue;
      experts.emplace(ExpertKey{layer, projection}, zero_pair(beside, context.spec, projection));
      names.insert(std::string(projection_name(projection)));
      ++added;
    }
  }
  return added;
}

void run(FitContext& context) {
  if (context.adapter.experts.empty()) return;
  split_gate_up(context.adapter);
  int64_t filled = 0;
  for (auto& entry : context.adapter.experts) {
    filled += fill_experts(entry.second.a);
    fill_experts(entry.second.b);
  }
  std::set<std::string> names;
  const int64_t added = add_projections(context, names);
  if (filled > 0)
    context.note(whole_experts.name,
                 fmt::format("{} experts without factors get zeros (exact)", filled));
  if (added > 0)
    context.note(whole_experts.name,
                 fmt::format("{} wants every projection of an expert: zero factors for {} (exact)",
                             context.title(), fmt::join(names, ", ")));
}

}  // namespace

const FitStep whole_experts = {
    "whole-experts", "sglang, vllm",
    "experts, or projections of experts, without factors beside others with: zero factors", run};

}  // namespace moelora::fit
