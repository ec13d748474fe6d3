#include "lib/engine/fit/fit.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "lib/adapter/names/text_names.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/nearest.h"
#include "lib/base/utf8.h"
#include "lib/engine/fit/drop.h"
#include "lib/engine/fit/hub_names.h"
#include "lib/io/tensor_writer.h"
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

std::string some_of(const std::vector<std::string>& names) { return list_some(names, 2); }

}  // namespace fit

namespace {

constexpr std::array<std::string_view, 7> kDropNames = {
    "router", "bias", "saved-modules", "embeddings", "vision", "text", "value-head"};
static_assert(kDropNames.size() == static_cast<size_t>(DropKind::value_head) + 1);

std::string last_component(const std::string& path) {
  const std::filesystem::path p(path);
  return (p.has_filename() ? p.filename() : p.parent_path().filename()).string();
}

// Which --drop would take these tensors out.
std::optional<DropKind> drop_for(const std::vector<std::string>& tensors, const ModelSpec& spec) {
  for (const std::string& name : tensors)
    if (const auto kind = fit::drop_of(parse_tensor_name(name).module, spec)) return kind;
  return std::nullopt;
}

Hint hint_for(const PlanEvent& event, const FitOptions& options) {
  const EngineFit& fit = *options.engine.engine->fit;
  if (fit.advice != nullptr)
    if (Hint hint = fit.advice(event); !hint.text().empty()) return hint;
  if (!options.to.empty())
    return {"leave ", Option::to, " out: the engine's own layout is then chosen"};
  return fmt::format("lora-validate --engine {} says what the server does, and what helps",
                     options.engine.label());
}

// torch's list of mismatches has a line each.
std::string on_one_line(std::string text) {
  for (size_t at = 0; (at = text.find_first_of("\n\t", at)) != std::string::npos;)
    text.replace(at, text.find_first_not_of("\n\t ", at) - at, " ");
  return text;
}

[[noreturn]] void refuse(const PlanEvent& event, const Conversion& c, const FitOptions& options) {
  std::string text;
  if (event.refusal)
    text = fmt::format("would refuse the output{}: {}",
                       event.refusal->first_use ? ", at the first request" : "",
                       on_one_line(refusal_text(*event.refusal)));
  else
    text = "would not compute what the output means: " + event.detail;
  if (!event.refusal && !event.tensors.empty())
    text += fmt::format(" ({})", fit::some_of(event.tensors));
  Hint hint = hint_for(event, options);
  const auto drop = drop_for(event.tensors, c.input.base->spec);
  if (drop && !options.drop.count(*drop)) throw DropNeeded(options.engine.label(), text, *drop);
  throw Error(options.engine.label(), text, std::move(hint));
}

[[noreturn]] void refuse_fate(const TensorFate& fate, const ModelSpec& spec,
                              const FitOptions& options) {
  std::string text = fmt::format("would leave {} {}", fate.tensor, fate_name(fate.fate));
  const auto drop = drop_for({fate.tensor}, spec);
  if (drop && !options.drop.count(*drop))
    throw DropNeeded(options.engine.label(), std::move(text), *drop);
  throw Error(options.engine.label(), std::move(text));
}

// The server whose plan is asked: started for this rank where nothing else is said, as the notes
// ask for.
ServerOptions server_for(const Conversion& c, const FitOptions& options) {
  ServerOptions out = options.server;
  const Json* rank = c.config.find("r");
  const EngineFit& fit = *options.engine.engine->fit;
  if (!out.max_lora_rank && !fit.legal_ranks.empty() && rank != nullptr)
    out.max_lora_rank = max_rank_for(fit, rank->as_int());
  return out;
}

// What a server would find in the folder a conversion writes: names, shapes and the config.
ServedAdapter served_adapter(const Conversion& c, const std::string& out, uint64_t max_shard_size) {
  ServedAdapter served;
  served.name = last_component(out);
  served.folder = out;
  served.has_config = true;
  served.config = c.config;
  for (const Shard& shard : split_shards("adapter_model", c.tensors, max_shard_size)) {
    WeightFile file{shard.file, {}};
    for (const auto* tensor : shard.tensors)
      file.tensors.push_back({tensor->first, tensor->second.dtype(), tensor->second.shape()});
    served.files.push_back(std::move(file));
  }
  return served;
}

// No server computes with integers or codes, whose scales no adapter's file has.
void refuse_codes(const Adapter& adapter) {
  const auto check = [](const std::string& name, const Tensor& factor) {
    if (factor.rank() == 0 || is_float(factor.dtype())) return;
    throw Error(name,
                fmt::format("is {}, and servers compute with F32, F16 and BF16 factors alone",
                            dtype_name(factor.dtype())),
                "save the adapter again without quantizing it");
  };
  for (const auto& [module, pair] : adapter.dense) {
    check(module + ".lora_A", pair.a);
    check(module + ".lora_B", pair.b);
  }
  for (const auto& [key, pair] : adapter.experts)
    for (const Factor* factor : {&pair.a, &pair.b})
      for (const Tensor& part : factor->parts)
        check(adapter.stem(key.layer) + "." + std::string(projection_name(key.projection)), part);
}

}  // namespace

std::string_view drop_name(DropKind kind) { return kDropNames[static_cast<size_t>(kind)]; }

DropKind parse_drop(std::string_view text) {
  const auto found = std::find(kDropNames.begin(), kDropNames.end(), text);
  if (found == kDropNames.end())
    throw unknown_word(at_option(Option::drop), "part", text, kDropNames);
  return static_cast<DropKind>(found - kDropNames.begin());
}

DropNeeded::DropNeeded(std::string where, std::string what, DropKind needed)
    : Error(std::move(where), std::move(what),
            {Option::drop,
             fmt::format(" {} leaves it out and says what is lost", drop_name(needed))}),
      kind(needed) {}

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
  if (engine.fit == nullptr)
    throw Error(at_option(Option::engine, std::string(engine.id)),
                "what adapters it serves is not known here",
                {"choose a layout with ", Option::to, " alone"});
  if (!input.base)
    throw Error(at_option(Option::engine, std::string(engine.id)),
                "what it serves depends on the base model, and none is known",
                {"name it with ", Option::base});
  const FitTarget target{options.engine, options.server, input.base->spec,
                         fit::is_shared_outer(input.adapter)};
  refuse_codes(input.adapter);
  FittedAdapter out;
  out.adapter = input.adapter;
  out.layout = options.to.empty() ? choose_layout(target).layout : &layout_by_id(options.to);
  out.write = engine.fit->write(target);
  out.changes.engine = options.engine.label();
  out.changes.options = options.server_pairs;
  out.changes.targets = engine.fit->targets;
  fit::FitContext context{out.adapter, *input.base, input.files.folder, options,
                          target,      *out.layout, out.changes};
  out.meant = fit::run_steps(context);
  return out;
}

FittedConversion plan_fitted(LoadedAdapter input, const FitOptions& options, PlanOptions convert) {
  FittedAdapter fitted = fit_adapter(input, options);
  convert.to = fitted.layout->id;
  convert.layout = fitted.write;
  FittedConversion out{std::move(fitted.meant),
                       plan_conversion(std::move(input), std::move(fitted.adapter),
                                       std::move(fitted.changes), convert)};
  if (const auto hub_names = options.engine.engine->fit->hub_names; hub_names != nullptr)
    fit::rename_modules(
        hub_names({options.engine, options.server, out.conversion.input.base->spec}),
        out.conversion);
  return out;
}

void check_served(const Conversion& c, const std::string& out, const FitOptions& options,
                  uint64_t max_shard_size) {
  if (options.engine.engine->plan == nullptr) return;
  // Of an adapter of towers alone; the engines' plans know the text model.
  if (options.drop.count(DropKind::text) != 0) return;
  const ServedAdapter served = served_adapter(c, out, max_shard_size);
  const BaseModel& base = *c.input.base;
  const ServerOptions server = server_for(c, options);
  const ServerPlan plan = options.engine.engine->plan(
      {{&served, 1}, base.spec, base.config, server, options.engine.version});
  if (!plan.not_known.empty())
    throw Error(options.engine.label(), plan.not_known + ": what it serves is not known",
                {"choose a layout with ", Option::to, " alone"});
  for (const PlanEvent& event : plan.server) refuse(event, c, options);
  for (const AdapterPlan& adapter : plan.adapters) {
    if (const PlanEvent* refusal = adapter.first_refusal()) refuse(*refusal, c, options);
    for (const PlanEvent& event : adapter.events) refuse(event, c, options);
    for (const TensorFate& fate : adapter.fates)
      if (fate.fate != Fate::used) refuse_fate(fate, base.spec, options);
  }
}

}  // namespace moelora
