#include "lib/adapter/expert_collector.h"

#include <fmt/core.h>

#include <algorithm>

#include "lib/base/error.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

constexpr int64_t kAllExperts = -1;
// Bounds on hostile indices and dims; the largest models have 512 experts and 140 thousand factors.
constexpr int64_t kMostExperts = 1 << 16;
constexpr int64_t kMostFactors = 1 << 22;

constexpr const char* kEmptyFactorHint =
    "an empty factor is what an ungathered ZeRO-3 or FSDP save leaves";

[[noreturn]] void too_many(const std::string& name) {
  throw Error(
      name,
      fmt::format("more than {} factors of experts, counting the absent ones of every layer",
                  kMostFactors),
      {"name the base model with ", Option::base});
}

int64_t inner(const Tensor& part, Side side) { return part.dim(side == Side::A ? 1 : 0); }

}  // namespace

Error orphan(const std::string& name, Side missing) {
  return {name, fmt::format("has no lora_{} beside it", side_letter(missing)),
          "the file is incomplete: save the adapter again"};
}

void check_factor(const std::string& name, const Tensor& factor) {
  if (factor.rank() != 2 || factor.elements() == 0)
    throw Error(name, fmt::format("has shape {}, expected two dims", to_string(factor.shape())),
                factor.elements() == 0 ? kEmptyFactorHint : "");
}

void check_ranks(const std::string& name, const Tensor& a, const Tensor& b) {
  if (a.dim(0) != b.dim(1))
    throw Error(name, fmt::format("rank {} of lora_A {} differs from rank {} of lora_B {}",
                                  a.dim(0), to_string(a.shape()), b.dim(1), to_string(b.shape())));
}

void check_config_rank(const std::string& name, const std::string& found, int64_t rank,
                       const Scaling& config) {
  if (rank != config.rank)
    throw Error(
        name, fmt::format("{}, but adapter_config.json says {}", found, config.rank),
        fmt::format("set \"r\" or a rank_pattern entry to {}: the scale alpha/r depends on it",
                    rank));
}

void check_expert_count(const ExpertTensor& from, int64_t experts) {
  if (experts > kMostExperts)
    throw Error(from.name,
                fmt::format("holds {} experts, expected at most {}", experts, kMostExperts));
}

ExpertCollector::Pair& ExpertCollector::pair(const ExpertTensor& from, Projection projection) {
  if (stem_.empty()) stem_ = from.path.stem;
  if (stem_ != from.path.stem)
    throw Error(from.name,
                fmt::format("lies under {}, other experts under {}", from.path.stem, stem_),
                "one adapter has one expert module path; split the file");
  Pair& pair = pairs_[{from.path.layer, projection}];
  Slot& slot = pair.side[static_cast<int>(from.side)];
  if (slot.name.empty()) slot.name = from.name;
  return pair;
}

void ExpertCollector::add(const ExpertTensor& from, Projection projection, int64_t expert,
                          Tensor part, std::string path) {
  check_factor(from.name, part);
  const int64_t limit = context_.spec != nullptr ? context_.spec->experts : kMostExperts;
  if (expert >= limit)
    throw Error(from.name, fmt::format("names expert {}, expected one below {}", expert, limit));
  Pair& p = pair(from, projection);
  auto& parts = p.side[static_cast<int>(from.side)].factor.parts;
  if (const auto count = static_cast<int64_t>(parts.size()); expert >= count) {
    factors_ += expert + 1 - count;
    if (factors_ > kMostFactors) too_many(from.name);
    parts.resize(static_cast<size_t>(expert) + 1);
  }
  Tensor& slot = parts[static_cast<size_t>(expert)];
  if (slot.rank() != 0 && context_.twins != nullptr && identical(slot, part))
    return context_.twins->push_back(from.name);
  if (slot.rank() != 0)
    throw Error(
        from.name,
        fmt::format("is a second lora_{} of layer {}, expert {}, {}", side_letter(from.side),
                    from.path.layer, expert, projection_name(projection)),
        "keep one spelling of this tensor");
  slot = std::move(part);
  p.path[expert] = std::move(path);
}

void ExpertCollector::add_all(const ExpertTensor& from, Projection projection,
                              std::vector<Tensor> parts, bool shared, std::string path) {
  Pair& p = pair(from, projection);
  Factor& factor = p.side[static_cast<int>(from.side)].factor;
  if (!factor.parts.empty())
    throw Error(from.name,
                fmt::format("is a second lora_{} of layer {}, {}", side_letter(from.side),
                            from.path.layer, projection_name(projection)),
                "keep one spelling of this tensor");
  factors_ += static_cast<int64_t>(parts.size());
  if (factors_ > kMostFactors) too_many(from.name);
  factor.parts = std::move(parts);
  factor.shared = shared;
  p.path[kAllExperts] = std::move(path);
}

void ExpertCollector::check(const ExpertKey& key, Pair& pair, int64_t experts) const {
  Slot &a = pair.side[0], &b = pair.side[1];
  const std::string& any_name = (a.name.empty() ? b : a).name;
  if (context_.spec != nullptr && !context_.spec->is_moe(key.layer))
    throw Error(any_name,
                fmt::format("layer {} of this base model has no routed experts", key.layer),
                check_base());
  const bool with_gate =
      key.projection == Projection::gate || key.projection == Projection::gate_up;
  if (context_.spec != nullptr && !context_.spec->gated && with_gate)
    throw Error(
        any_name,
        fmt::format("the experts of this base model have no {}", projection_name(key.projection)),
        check_base());
  if (a.name.empty()) throw orphan(b.name, Side::A);
  if (b.name.empty()) throw orphan(a.name, Side::B);
  for (Slot* slot : {&a, &b}) {
    if (slot->factor.shared) continue;
    const auto held = static_cast<int64_t>(slot->factor.parts.size());
    if (held != experts && pair.path.begin()->first == kAllExperts)
      throw Error(
          slot->name,
          fmt::format("has {} experts, {} {}", held,
                      context_.spec != nullptr ? "the base model" : "other tensors", experts),
          {"an expert-parallel rank's part saved as the whole? check ", Option::base});
    slot->factor.parts.resize(static_cast<size_t>(experts));
  }
  for (int64_t e = 0; e < experts; ++e) {
    const bool has_a = a.factor.has(e), has_b = b.factor.has(e);
    if (has_a != has_b)
      throw orphan(fmt::format("layer {}, expert {}, {}, lora_{}", key.layer, e,
                               projection_name(key.projection), has_a ? 'A' : 'B'),
                   has_a ? Side::B : Side::A);
    if (!has_a) continue;
    const Tensor &ta = a.factor.at(e), &tb = b.factor.at(e);
    check_ranks(a.name, ta, tb);
    if (context_.spec == nullptr) continue;
    for (const auto& [slot, part, side, want] :
         {std::tuple{&a, &ta, Side::A, context_.spec->in_dim(key.projection)},
          std::tuple{&b, &tb, Side::B, context_.spec->out_dim(key.projection)}})
      if (inner(*part, side) != want)
        throw Error(
            slot->name,
            fmt::format("expert {} has shape {}, expected {} {} for {} of this base model", e,
                        to_string(part->shape()), want, side == Side::A ? "columns" : "rows",
                        projection_name(key.projection)),
            check_base());
  }
}

ExpertPair ExpertCollector::finished(Pair& pair, int64_t experts) const {
  ExpertPair out;
  out.a = std::move(pair.side[0].factor);
  out.b = std::move(pair.side[1].factor);
  const bool uniform = pair.path.begin()->first == kAllExperts;
  const Scaling first = context_.config.scaling(pair.path.begin()->second);  // absent experts' too
  out.scaling.assign(uniform ? 1 : static_cast<size_t>(experts), first);
  for (const auto& [e, path] : pair.path) {
    const Scaling scaling = context_.config.scaling(path);
    const int64_t expert = uniform ? 0 : e, rank = factor_rank(out.a.at(expert), Side::A);
    if (rank != scaling.rank)
      check_config_rank(pair.side[0].name, fmt::format("rank {} for {}", rank, path), rank,
                        scaling);
    out.scaling[static_cast<size_t>(expert)] = scaling;
  }
  out.merge_scaling();
  return out;
}

int64_t ExpertCollector::count_experts() const {
  const Pair& first = pairs_.begin()->second;
  const std::string& name = first.side[first.side[0].name.empty() ? 1 : 0].name;
  int64_t experts = context_.spec != nullptr ? context_.spec->experts : 0;
  if (context_.spec == nullptr)
    for (const auto& entry : pairs_)
      for (const Slot& slot : entry.second.side)
        if (!slot.factor.shared)
          experts = std::max(experts, static_cast<int64_t>(slot.factor.parts.size()));
  if (experts == 0)
    throw Error(
        name,
        "every expert factor of this file is one matrix for all experts, and nothing says how many "
        "there are",
        {"name the base model with ", Option::base});
  if (experts > kMostFactors / (2 * static_cast<int64_t>(pairs_.size()))) too_many(name);
  return experts;
}

void ExpertCollector::finish(Adapter& adapter) {
  if (pairs_.empty()) throw Error("experts", "hold no element", kEmptyFactorHint);
  const int64_t experts = count_experts();
  for (auto& entry : pairs_) {
    check(entry.first, entry.second, experts);
    adapter.experts.emplace(entry.first, finished(entry.second, experts));
  }
  adapter.expert_count = experts;
  adapter.expert_stem = stem_;
}

}  // namespace moelora
