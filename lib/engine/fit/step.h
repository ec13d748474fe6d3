#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/adapter/adapter.h"
#include "lib/engine/fit/engine_fit.h"
#include "lib/model/base_model.h"

namespace moelora::fit {

// What a step may look at and change. Steps run in the order of the engine's table; each sees what
// those before it made. Until `one-rank`, ranks of different modules may differ.
struct FitContext {
  Adapter& adapter;
  const BaseModel& base;
  const std::string& folder;  // of the input
  const FitOptions& options;
  const FitTarget& target;
  const Layout& layout;  // to be written
  Changes& changes;
  double scale = 1;  // of every pair, once `one-scale` has run

  const ModelSpec& spec() const { return base.spec; }
  const EngineFit& engine() const { return *options.engine.engine->fit; }
  std::string_view title() const { return options.engine.engine->title; }
  bool drops(DropKind kind) const { return options.drop.count(kind) != 0; }
  void note(std::string_view step, std::string text) {
    changes.made.push_back({std::string(step), std::move(text)});
  }
};

struct FitStep {
  std::string_view name;
  std::string_view summary;  // for the table of repairs
  void (*run)(FitContext& context);
  // It changes which deltas there are or what they are called: what the adapter means is compared
  // (verify_fit) as the last such step leaves it.
  bool renames = false;
};

// "q_proj in 3 modules (model.layers.0.self_attn.q_proj, ...)": the first two of a list.
std::string some_of(const std::vector<std::string>& names);

}  // namespace moelora::fit
