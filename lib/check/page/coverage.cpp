#include "lib/check/page/coverage.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <set>

#include "lib/base/page/heat_map.h"
#include "lib/check/report_parts.h"

namespace moelora {
namespace {

// What becomes of a module of a layer, the worst last.
enum State : uint8_t { kAbsent, kUntouched, kUsed, kChanged, kDropped, kRefused };

const std::vector<page::Shade>& key() {
  static const std::vector<page::Shade> kKey = {
      {"gap", -1, ""},
      {"k0", 250, "not adapted"},
      {"used", 71, "adapted"},
      {"changed", 178, "cut, partial or misplaced"},
      {"lost", 160, "dropped by the server"},
      {"kx", 199, "refused"},
  };
  return kKey;
}

State state_of(Fate fate) {
  switch (fate) {
    case Fate::used:
      return kUsed;
    case Fate::cut:
    case Fate::partial:
    case Fate::misplaced:
      return kChanged;
    case Fate::unused:
      return kDropped;
    case Fate::refused:
      break;
  }
  return kRefused;
}

// Rows are names below the layer; -1 stands for no layer.
class Modules {
 public:
  void mark(const std::string& row, int layer, State state) {
    State& cell = cells_[row][layer];
    cell = std::max(cell, state);
    layers_.insert(layer);
  }

  page::Grid grid() const {
    page::Grid out;
    out.column_noun = "layer";
    out.key = key();
    for (const int layer : layers_)
      out.columns.push_back(layer < 0 ? "none" : std::to_string(layer));
    for (const auto& [row, cells] : cells_) {
      if (out.rows.size() == page::kMostRows) break;
      out.rows.push_back(row);
      for (const int layer : layers_) {
        const auto cell = cells.find(layer);
        const State state = cell == cells.end() ? kAbsent : cell->second;
        out.cells.push_back(state);
        out.tips.push_back(fmt::format("{}, layer {}: {}", row, layer,
                                       state == kAbsent ? "no such module" : key()[state].label));
      }
    }
    if (cells_.size() > out.rows.size())
      out.explanation = fmt::format("The first {} of {} modules.", out.rows.size(), cells_.size());
    return out;
  }

 private:
  std::map<std::string, std::map<int, State>> cells_;
  std::set<int> layers_;
};

constexpr const char* kExperts = "experts.";

std::vector<Projection> parts_of(Projection projection) {
  if (projection == Projection::gate_up) return {Projection::gate, Projection::up};
  return {projection};
}

void mark_experts(Modules& modules, int layer, Projection projection, State state) {
  for (const Projection part : parts_of(projection))
    modules.mark(kExperts + std::string(projection_name(part)), layer, state);
}

void mark_base(Modules& modules, const ModelSpec& spec) {
  for (const LinearSpec& linear : spec.linears)
    modules.mark(std::string(below_layer(linear.memory)), linear.layer, kUntouched);
  for (int layer = 0; layer < spec.layers; ++layer) {
    if (!spec.is_moe(layer)) continue;
    if (spec.gated)
      mark_experts(modules, layer, Projection::gate_up, kUntouched);
    else
      mark_experts(modules, layer, Projection::up, kUntouched);
    mark_experts(modules, layer, Projection::down, kUntouched);
  }
}

// PEFT's stacks name no projection: what the adapter has in that layer.
void mark_unnamed_experts(Modules& modules, const Subject& subject, int layer, State state) {
  if (!subject.loaded) return modules.mark("experts", layer, state);
  for (const auto& entry : subject.loaded->adapter.experts)
    if (entry.first.layer == layer) mark_experts(modules, layer, entry.first.projection, state);
}

void mark_tensor(Modules& modules, const Subject& subject, const NamedTensor& tensor, State state) {
  if (tensor.expert) {
    const int layer = tensor.expert->layer;
    if (tensor.expert->projection)
      mark_experts(modules, layer, *tensor.expert->projection, state);
    else
      mark_unnamed_experts(modules, subject, layer, state);
  } else if (const LinearSpec* linear = subject.linear_of(tensor)) {
    modules.mark(std::string(below_layer(linear->memory)), linear->layer, state);
  } else {
    modules.mark(std::string(below_layer(tensor.module)), tensor.layer, state);
  }
}

page::Grid drawn(const Subject& subject, const AdapterPlan* plan) {
  Modules modules;
  if (subject.spec() != nullptr) mark_base(modules, *subject.spec());
  std::map<std::string_view, Fate> fates;
  if (plan != nullptr)
    for (const TensorFate& fate : plan->fates) fates[fate.tensor] = fate.fate;
  for (const NamedTensor& tensor : subject.parts.tensors) {
    if (!tensor.is_factor()) continue;
    const auto fate = fates.find(tensor.name);
    mark_tensor(modules, subject, tensor, fate == fates.end() ? kUsed : state_of(fate->second));
  }
  return modules.grid();
}

}  // namespace

std::vector<Coverage> coverages(const Report& report, size_t most, size_t* left_out) {
  std::vector<Coverage> out;
  size_t all = 0;
  const auto add = [&](const Section& at, const Subject& subject, const EngineRun* run) {
    if (++all > most) return;
    const AdapterPlan* plan = run != nullptr ? run->plan_of(*at.adapter) : nullptr;
    std::string title = adapter_title(report, at);
    if (run != nullptr) title += " on " + run->choice.label();
    out.push_back({title, drawn(subject, plan)});
  };
  for (const Section& at : sections(report)) {
    if (!at.adapter) continue;
    const Deployment& deployment = report.deployments[at.deployment];
    const Subject& subject = deployment.adapters[*at.adapter];
    if (subject.parts.pairs.empty()) continue;
    const size_t before = all;
    for (const EngineRun& run : deployment.engines)
      if (const AdapterPlan* plan = run.plan_of(*at.adapter);
          plan != nullptr && !plan->fates.empty())
        add(at, subject, &run);
    if (all == before) add(at, subject, nullptr);
  }
  if (left_out != nullptr) *left_out = all - out.size();
  return out;
}

}  // namespace moelora
