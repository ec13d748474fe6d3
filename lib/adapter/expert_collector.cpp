#include "lib/adapter/expert_collector.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/base/error.h"

namespace moelora {
namespace {

constexpr int64_t kAllExperts = -1;
constexpr int64_t kMostExperts = 1 << 16;  // without a base model: a bound on hostile indices

[[noreturn]] void orphan(const std::string& name, Side missing) {
  throw Error(name, fmt::format("has no lora_{} beside it", side_letter(missing)),
              "the file is incomplete: save the adapter again");
}

int64_t inner(const Tensor& part, Side side) { return part.dim(side == Side::A ? 1 : 0); }

}  // namespace

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
  if (part.rank() != 2)
    throw Error(from.name, fmt::format("has shape {}, expected two dims", to_string(part.shape())));
  const int64_t limit = context_.spec != nullptr ? context_.spec->experts : kMostExperts;
  if (expert >= limit)
    throw Error(from.name, fmt::format("names expert {}, expected one below {}", expert, limit));
  Pair& p = pair(from, projection);
  auto& parts = p.side[static_cast<int>(from.side)].factor.parts;
  if (static_cast<size_t>(expert) >= parts.size()) parts.resize(static_cast<size_t>(expert) + 1);
  Tensor& slot = parts[static_cast<size_t>(expert)];
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
  factor.parts = std::move(parts);
  factor.shared = shared;
  p.path[kAllExperts] = std::move(path);
}

void ExpertCollector::check(const ExpertKey& key, Pair& pair, int64_t experts) const {
  Slot &a = pair.side[0], &b = pair.side[1];
  if (context_.spec != nullptr && !context_.spec->is_moe(key.layer))
    throw Error((a.name.empty() ? b : a).name,
                fmt::format("layer {} of this base model has no routed experts", key.layer),
                "check that --base names the model this adapter was trained on");
  if (a.name.empty()) orphan(b.name, Side::A);
  if (b.name.empty()) orphan(a.name, Side::B);
  for (Slot* slot : {&a, &b}) {
    if (slot->factor.shared) continue;
    if (static_cast<int64_t>(slot->factor.parts.size()) > experts)
      throw Error(slot->name, fmt::format("has {} experts, the base model {}",
                                          slot->factor.parts.size(), experts));
    slot->factor.parts.resize(static_cast<size_t>(experts));
  }
  for (int64_t e = 0; e < experts; ++e) {
    const bool has_a = a.factor.has(e), has_b = b.factor.has(e);
    if (has_a != has_b)
      orphan(fmt::format("layer {}, expert {}, {}, lora_{}", key.layer, e,
                         projection_name(key.projection), has_a ? 'A' : 'B'),
             has_a ? Side::B : Side::A);
    if (!has_a) continue;
    const Tensor &ta = a.factor.at(e), &tb = b.factor.at(e);
    if (ta.dim(0) != tb.dim(1))
      throw Error(a.name,
                  fmt::format("rank {} of lora_A {} differs from rank {} of lora_B {}", ta.dim(0),
                              to_string(ta.shape()), tb.dim(1), to_string(tb.shape())));
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
            "check that --base names the model this adapter was trained on");
  }
}

ExpertPair ExpertCollector::finished(Pair& pair, int64_t experts) const {
  ExpertPair out;
  out.a = std::move(pair.side[0].factor);
  out.b = std::move(pair.side[1].factor);
  const bool uniform = pair.path.begin()->first == kAllExperts;
  for (int64_t e = 0; e < experts; ++e) {
    if (uniform && e > 0) break;
    const auto path = uniform ? pair.path.begin() : pair.path.find(e);
    if (path == pair.path.end()) {
      out.scaling.push_back(out.scaling.empty() ? context_.config.scaling("") : out.scaling.back());
      continue;
    }
    const Scaling scaling = context_.config.scaling(path->second);
    const int64_t rank = factor_rank(out.a.at(uniform ? 0 : e), Side::A);
    if (rank != scaling.rank)
      throw Error(
          pair.side[0].name,
          fmt::format("rank {} for {}, but adapter_config.json says {}", rank, path->second,
                      scaling.rank),
          fmt::format("set \"r\" or a rank_pattern entry to {}: the scale alpha/r depends on it",
                      rank));
    out.scaling.push_back(scaling);
  }
  if (std::adjacent_find(out.scaling.begin(), out.scaling.end(), std::not_equal_to<>()) ==
      out.scaling.end())
    out.scaling.resize(1);
  return out;
}

void ExpertCollector::finish(Adapter& adapter) {
  int64_t experts = context_.spec != nullptr ? context_.spec->experts : 0;
  if (context_.spec == nullptr)
    for (const auto& entry : pairs_)
      for (const Slot& slot : entry.second.side)
        if (!slot.factor.shared)
          experts = std::max(experts, static_cast<int64_t>(slot.factor.parts.size()));
  if (experts == 0) experts = 1;
  for (auto& entry : pairs_) {
    check(entry.first, entry.second, experts);
    adapter.experts.emplace(entry.first, finished(entry.second, experts));
  }
  adapter.expert_count = experts;
  adapter.expert_stem = stem_;
}

}  // namespace moelora
