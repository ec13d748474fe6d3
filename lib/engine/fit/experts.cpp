#include "lib/engine/fit/experts.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "lib/adapter/gate_up.h"

namespace moelora::fit {
namespace {

// ---- every part of an expert -----------------------------------------------------------------

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
  if (context.spec().gated) wanted.push_back(Projection::gate);
  int64_t added = 0;
  auto& experts = context.adapter.experts;
  for (int layer : expert_layers(context.adapter)) {
    const ExpertPair beside = experts.lower_bound({layer, Projection::gate})->second;
    for (Projection projection : wanted) {
      if (experts.count({layer, projection}) != 0) continue;
      experts.emplace(ExpertKey{layer, projection}, zero_pair(beside, context.spec(), projection));
      names.insert(std::string(projection_name(projection)));
      ++added;
    }
  }
  return added;
}

void fill_up(FitContext& context) {
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

// ---- one lora_A for gate and up --------------------------------------------------------------

std::map<int, int64_t> gate_ranks(const Adapter& adapter) {
  std::map<int, int64_t> out;
  for (const auto& [key, pair] : adapter.experts)
    if (key.projection == Projection::gate) out[key.layer] = max_rank(pair);
  return out;
}

// Where the engine uses gate's lora_A for up, in words; "" nowhere.
std::string_view misreads_up(const FitContext& context) {
  const auto asks = context.engine().misreads_up;
  return asks == nullptr || !context.spec().gated ? "" : asks(context.target);
}

void note_doubled(FitContext& context, const std::map<int, int64_t>& before,
                  std::string_view misread) {
  int64_t layers = 0, from = 0, to = 0;
  for (const auto& [key, pair] : context.adapter.experts) {
    if (key.projection != Projection::gate_up || max_rank(pair) <= before.at(key.layer)) continue;
    ++layers;
    from = before.at(key.layer);
    to = max_rank(pair);
  }
  if (layers == 0) return;
  const std::string reason =
      misread.empty()
          ? fmt::format("{} holds one lora_A for gate and up", context.layout.id)
          : fmt::format("{} multiplies up with gate's lora_A {}", context.title(), misread);
  context.note(one_a.name, fmt::format("{}: in {} layers both get one of rank {} instead of {}, "
                                       "with zeros in lora_B (exact)",
                                       reason, layers, to, from));
}

void join_gate_and_up(FitContext& context) {
  const Layout& layout = context.layout;
  const std::string_view misread = misreads_up(context);
  if (context.adapter.experts.empty() || !context.spec().gated) return;
  const bool joins = joins_gate_up(layout, &context.spec());
  if (misread.empty() && !joins) return;
  const auto before = gate_ranks(context.adapter);
  const bool family_order = joins && !layout.gate_up_order;
  fuse_gate_up(context.adapter,
               family_order ? required_gate_up_order(context.spec()) : GateUpOrder::halves,
               context.options.threads);
  note_doubled(context, before, misread);
}

}  // namespace

const FitStep whole_experts = {
    "whole-experts",
    "experts, or projections of experts, without factors beside others with: zero factors",
    fill_up};

const FitStep one_a = {
    "one-a",
    "gate and up with a lora_A of their own, where the layout or the server (gpt-oss; virtual "
    "experts of SGLang before 0.5.23) has one for both: stacked, of twice the rank",
    join_gate_and_up};

}  // namespace moelora::fit
