#include "lib/check/served_deltas.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "lib/adapter/tensor_name.h"
#include "lib/base/dotted_path.h"
#include "lib/base/utf8.h"
#include "lib/engine/buffers.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

constexpr int64_t kMostRanks = 256;

// In the order of subject.served.files; the adapter's own tensors were moved out of `files`.
std::vector<TensorMap> values_of(const Subject& subject) {
  std::vector<TensorMap> out;
  for (size_t i = 0; i < subject.served.files.size(); ++i) {
    TensorMap& values = out.emplace_back();
    const TensorMap& left = subject.files[i].tensors;
    for (const TensorHeader& header : subject.served.files[i].tensors) {
      const auto at = left.find(header.name);
      values.emplace(header.name, at != left.end() ? at->second : subject.tensors.at(header.name));
    }
  }
  return out;
}

std::optional<Adapter> read_by_names(const Subject& subject, const ModelSpec& spec) {
  Adapter out =
      interpret_tensors(subject.tensors, subject.experts, *subject.parsed_config, nullptr, "", {})
          .adapter;
  if (!out.gate_up_order) out.gate_up_order = spec.gate_up_order;
  if (out.expert_count != 0 && out.expert_count != spec.experts) return std::nullopt;
  return out;
}

// Names of the file's tensors by what they read.
class Origins {
 public:
  explicit Origins(const Subject& subject) {
    for (const auto& [name, tensor] : subject.tensors)
      for (const Piece& piece : tensor.pieces()) names_[piece.source.get()] = &name;
  }
  void add(const Tensor& tensor, std::set<std::string>& out) const {
    for (const Piece& piece : tensor.pieces())
      if (const auto at = names_.find(piece.source.get()); at != names_.end())
        out.insert(*at->second);
  }

 private:
  std::map<const Source*, const std::string*> names_;
};

// Which events of a plan concern some tensors; those of no tensor concern what no other does.
class Explained {
  struct ByName {
    bool operator()(const Rule* a, const Rule* b) const { return a->name < b->name; }
  };
  using Rules = std::set<const Rule*, ByName>;

 public:
  explicit Explained(const AdapterPlan& plan) {
    for (const PlanEvent& event : plan.events) {
      const Rule* rule = find_rule(*event.cause);
      if (event.tensors.empty()) general_.insert(rule);
      for (const std::string& tensor : event.tensors) by_tensor_[tensor].insert(rule);
    }
  }
  std::vector<const Rule*> of(const std::set<std::string>& tensors) const {
    Rules out;
    for (const std::string& tensor : tensors)
      if (const auto at = by_tensor_.find(tensor); at != by_tensor_.end())
        out.insert(at->second.begin(), at->second.end());
    if (out.empty()) out = general_;
    return {out.begin(), out.end()};
  }

 private:
  std::map<std::string_view, Rules> by_tensor_;
  Rules general_;
};

std::vector<std::string_view> names_of(const std::vector<const Rule*>& rules) {
  std::vector<std::string_view> out;
  for (const Rule* rule : rules) out.push_back(rule->name);
  return out;
}

using Kind = WrongDeltas::Kind;
using Reason = std::tuple<bool, Kind, std::vector<std::string_view>, std::string_view>;

Kind kind_of(const ServedDelta& delta) {
  if (delta.is_lost()) return Kind::lost;
  if (!std::isfinite(delta.apart)) return Kind::not_finite;
  return delta.meant > 0 ? Kind::off : Kind::untrained;
}

// Of a dense module by its path, of an expert's projection by its key; -1 for none.
int layer_of(const DeltaKey& key) {
  if (key.layer >= 0) return key.layer;
  const auto place = find_layer(key.module);
  return place ? place->layer : -1;
}

std::string listed(const std::set<std::string_view>& words) {
  std::string out;
  size_t left = words.size();
  for (std::string_view word : words) {
    out += word;
    --left;
    if (left > 0) out += left == 1 ? " and " : ", ";
  }
  return out;
}

std::string numbered(std::string_view noun, const std::set<int>& numbers) {
  return fmt::format("{}{} {}", noun, numbers.size() == 1 ? "" : "s",
                     ranges({numbers.begin(), numbers.end()}));
}

}  // namespace

std::optional<Meaning> meaning_of(const Subject& subject, const ModelSpec& spec, std::string& why) {
  if (subject.adapter_error) why = subject.adapter_error->what();
  if (!subject.parsed_config || subject.tensors.empty()) return std::nullopt;
  try {
    std::optional<Adapter> adapter =
        subject.loaded ? subject.loaded->adapter : read_by_names(subject, spec);
    if (!adapter) return std::nullopt;
    Deltas deltas = meant_deltas(*adapter, spec);
    return Meaning{std::move(*adapter), std::move(deltas)};
  } catch (const MachineError&) {
    throw;
  } catch (const Error& error) {
    if (why.empty()) why = error.what();  // the error of the base's names comes first
    return std::nullopt;
  }
}

bool is_served(const EngineRun& run, size_t adapter) {
  const AdapterPlan* plan = run.plan_of(adapter);
  const auto refuses = [](const PlanEvent& event) { return event.refusal.has_value(); };
  return plan != nullptr && plan->first_refusal() == nullptr &&
         std::none_of(run.plan->server.begin(), run.plan->server.end(), refuses);
}

std::vector<ServedBlock> served_blocks(const Subject& subject, const BaseModel& base,
                                       const EngineRun& run) {
  const Engine& engine = *run.choice.engine;
  const std::vector<TensorMap> values = values_of(subject);
  std::vector<ServedBlock> out;
  const int64_t ranks = std::min(std::max(run.options.tp, run.options.ep), kMostRanks);
  for (int64_t rank = 0; rank < ranks; ++rank) {
    const BufferRequest request{subject.served,     values, base.spec, base.config, run.options,
                                run.choice.version, rank};
    const RankBuffers held = engine.fill(request);
    if (held.refused) throw Error(run.choice.label(), refusal_text(*held.refused));
    for (ServedBlock& block : engine.blocks(request, held)) out.push_back(std::move(block));
  }
  return out;
}

std::vector<WrongDeltas> wrong_by_reason(const std::vector<ServedDelta>& deltas,
                                         const Deltas& meant, const Subject& subject,
                                         const AdapterPlan& plan) {
  const Origins origins(subject);
  const Explained explained(plan);
  std::map<Reason, WrongDeltas> groups;
  for (const ServedDelta& delta : deltas) {
    if (!delta.is_wrong()) continue;
    std::set<std::string> tensors;
    if (const auto at = meant.find(delta.key); at != meant.end()) {
      origins.add(at->second.a, tensors);
      origins.add(at->second.b, tensors);
    }
    const std::vector<const Rule*> rules = explained.of(tensors);
    const auto [at, fresh] =
        groups.try_emplace({delta.key.expert >= 0, kind_of(delta), names_of(rules), delta.defect});
    WrongDeltas& group = at->second;
    if (fresh) {
      group.kind = kind_of(delta);
      group.experts = delta.key.expert >= 0;
      group.rules = rules;
      group.defect = delta.defect;
      group.least = group.most = delta.relative();
    }
    group.least = std::min(group.least, delta.relative());
    group.most = std::max(group.most, delta.relative());
    group.keys.push_back(delta.key);
    group.tensors.merge(tensors);
  }
  std::vector<WrongDeltas> out;
  for (auto& [reason, group] : groups) out.push_back(std::move(group));
  return out;
}

std::string places_text(const std::vector<DeltaKey>& keys) {
  std::set<std::string_view> leaves;
  std::set<int> layers, experts;
  for (const DeltaKey& key : keys) {
    leaves.insert(leaf_of(key.module));
    if (layer_of(key) >= 0) layers.insert(layer_of(key));
    if (key.expert >= 0) experts.insert(static_cast<int>(key.expert));
  }
  std::string out = listed(leaves);
  if (!layers.empty()) out += " of " + numbered("layer", layers);
  if (!experts.empty()) out += ", " + numbered("expert", experts);
  return out;
}

}  // namespace moelora
