#include "lib/engine/fit/fit.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "lib/base/nearest.h"
#include "lib/base/utf8.h"
#include "lib/engine/fit/step.h"

namespace moelora {
namespace fit {
namespace {

// In this order: later steps rely on what earlier ones made.
const std::array<const FitStep*, 12> kSteps = {
    &drop_unheld, &module_names, &split_gdn, &whole_groups, &whole_experts, &even_experts,
    &one_scale,   &one_a,        &one_rank,  &wide_range,   &plain_config,  &added_tokens};
// After this one no delta changes its name, and verify_fit can compare.
const FitStep* const kLastToRename = &split_gdn;

bool is_for(const FitStep& step, std::string_view engine) {
  return step.engines.find(engine) != std::string_view::npos;
}

// Whether gate/up A and down B are each one matrix for all experts, wherever there are any.
bool is_shared_outer(const Adapter& adapter) {
  return !adapter.experts.empty() &&
         std::all_of(adapter.experts.begin(), adapter.experts.end(), [](const auto& entry) {
           const bool down = entry.first.projection == Projection::down;
           return down ? entry.second.b.shared : entry.second.a.shared;
         });
}

}  // namespace

std::string some_of(const std::vector<std::string>& names) {
  constexpr size_t kShown = 2;
  std::string out;
  for (size_t i = 0; i < std::min(kShown, names.size()); ++i)
    out += fmt::format("{}{}", i == 0 ? "" : ", ", printable(names[i]));
  return names.size() <= kShown ? out : fmt::format("{} and {} more", out, names.size() - kShown);
}

}  // namespace fit

std::string_view drop_name(DropKind kind) {
  switch (kind) {
    case DropKind::router:
      return "router";
    case DropKind::bias:
      return "bias";
    case DropKind::saved_modules:
      return "saved-modules";
    case DropKind::embeddings:
      return "embeddings";
  }
  return "";
}

DropKind parse_drop(std::string_view text) {
  std::vector<std::string_view> known;
  for (DropKind kind :
       {DropKind::router, DropKind::bias, DropKind::saved_modules, DropKind::embeddings}) {
    if (drop_name(kind) == text) return kind;
    known.push_back(drop_name(kind));
  }
  throw unknown_word(at_option(Option::drop), "part", text, known);
}

FittedAdapter fit_adapter(const LoadedAdapter& input, const FitOptions& options) {
  if (!input.base)
    throw Error(at_option(Option::engine, std::string(options.engine.engine->id)),
                "what it serves depends on the base model, and none is known",
                {"name it with ", Option::base});
  const ModelSpec& spec = input.base->spec;
  const Situation situation{options.engine, options.server, spec,
                            fit::is_shared_outer(input.adapter)};
  LayoutChoice choice = choose_layout(situation);
  if (!options.to.empty()) choice.layout = &layout_by_id(options.to);

  FittedAdapter out;
  out.adapter = input.adapter;
  out.layout = choice.layout;
  out.write = write_options(situation);
  out.fitting.engine = options.engine.label();
  out.fitting.options = options.server_pairs;
  if (options.engine.engine->id == "sglang") out.fitting.targets = TargetStyle::suffixes;
  fit::FitContext context{out.adapter, spec,   *input.base, input.files.folder,
                          options,     choice, out.fitting};
  for (const fit::FitStep* step : fit::kSteps) {
    if (fit::is_for(*step, options.engine.engine->id)) step->run(context);
    if (step == fit::kLastToRename) out.meant = out.adapter;
  }
  return out;
}

FittedConversion plan_fitted(LoadedAdapter input, const FitOptions& options,
                             ConvertOptions convert) {
  FittedAdapter fitted = fit_adapter(input, options);
  convert.to = fitted.layout->id;
  convert.layout = fitted.write;
  return {std::move(fitted.meant), plan_conversion(std::move(input), std::move(fitted.adapter),
                                                   std::move(fitted.fitting), convert)};
}

std::vector<RepairRow> repair_rows() {
  std::vector<RepairRow> out;
  for (const fit::FitStep* step : fit::kSteps)
    out.push_back({step->name, step->engines, step->summary});
  return out;
}

}  // namespace moelora
