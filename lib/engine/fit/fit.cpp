#include "lib/engine/fit/fit.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/base/nearest.h"
#include "lib/base/utf8.h"
#include "lib/engine/fit/step.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace fit {
namespace {

// Whether gate/up A and down B are each one matrix for all experts, wherever there are any.
bool is_shared_outer(const Adapter& adapter) {
  return !adapter.experts.empty() &&
         std::all_of(adapter.experts.begin(), adapter.experts.end(), [](const auto& entry) {
           const bool down = entry.first.projection == Projection::down;
           return down ? entry.second.b.shared : entry.second.a.shared;
         });
}

// Returns what the adapter means under the names it has in the end.
Adapter run_steps(FitContext& context) {
  Adapter meant = context.adapter;
  for (const FitStep* step : context.engine().steps) {
    step->run(context);
    if (step->renames) meant = context.adapter;
  }
  return meant;
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

int64_t max_rank_for(const EngineFit& fit, int64_t rank) {
  const auto legal = std::lower_bound(fit.legal_ranks.begin(), fit.legal_ranks.end(),
                                      std::max(rank, fit.default_rank));
  return legal == fit.legal_ranks.end() ? rank : *legal;
}

const LayoutChoice& choose_layout(const FitTarget& target) {
  const std::span<const LayoutChoice> choices = target.engine.engine->fit->layouts;
  return *std::find_if(choices.begin(), choices.end() - 1,
                       [&](const LayoutChoice& choice) { return choice.applies(target); });
}

FittedAdapter fit_adapter(const LoadedAdapter& input, const FitOptions& options) {
  const Engine& engine = *options.engine.engine;
  if (!input.base)
    throw Error(at_option(Option::engine, std::string(engine.id)),
                "what it serves depends on the base model, and none is known",
                {"name it with ", Option::base});
  const FitTarget target{options.engine, options.server, input.base->spec,
                         fit::is_shared_outer(input.adapter)};
  FittedAdapter out;
  out.adapter = input.adapter;
  out.layout = options.to.empty() ? choose_layout(target).layout : &layout_by_id(options.to);
  out.write = engine.fit->write(target);
  out.fitting.engine = options.engine.label();
  out.fitting.options = options.server_pairs;
  out.fitting.targets = engine.fit->targets;
  fit::FitContext context{out.adapter, *input.base, input.files.folder, options,
                          target,      *out.layout, out.fitting};
  out.meant = fit::run_steps(context);
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
  for (const Engine* engine : all_engines())
    for (const fit::FitStep* step : engine->fit->steps) {
      const auto row = std::find_if(out.begin(), out.end(), [&](const RepairRow& known) {
        return known.summary == step->summary;
      });
      if (row != out.end())
        row->engines.push_back(engine->id);
      else
        out.push_back({step->name, step->summary, {engine->id}});
    }
  return out;
}

}  // namespace moelora
