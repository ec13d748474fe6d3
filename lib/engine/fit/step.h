#pragma once

#include <string>
#include <string_view>

#include "lib/engine/fit/fit.h"
#include "lib/engine/fit/layout_choice.h"
#include "lib/model/base_model.h"

namespace moelora::fit {

// What a step may look at and change. Steps run in the order of fit.cpp's table; each sees what
// those before it made. Until `one-rank`, ranks of different modules may differ.
struct FitContext {
  Adapter& adapter;
  const ModelSpec& spec;
  const BaseModel& base;
  const std::string& folder;  // of the input
  const FitOptions& options;
  const LayoutChoice& choice;
  Fitting& fitting;
  double scale = 1;  // of every pair, once `one-scale` has run

  const EngineChoice& engine() const { return options.engine; }
  bool is(std::string_view id) const { return options.engine.engine->id == id; }
  std::string_view title() const { return options.engine.engine->title; }
  bool drops(DropKind kind) const { return options.drop.count(kind) != 0; }
  void note(std::string_view step, std::string text) {
    fitting.repairs.push_back({std::string(step), std::move(text)});
  }
};

struct FitStep {
  std::string_view name;
  std::string_view engines;  // ids it is for, "sglang, vllm"
  std::string_view summary;  // for the README's table
  void (*run)(FitContext& context);
};

// One file each.
extern const FitStep drop_unheld, module_names, split_gdn, whole_groups, whole_experts,
    even_experts, one_scale, one_a, one_rank, wide_range, plain_config, added_tokens;

// "q_proj in 3 modules (model.layers.0.self_attn.q_proj, ...)": the first two of a list.
std::string some_of(const std::vector<std::string>& names);

}  // namespace moelora::fit
