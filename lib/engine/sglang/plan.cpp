#include "lib/engine/sglang/plan.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "lib/adapter/tensor_name.h"
#include "lib/base/dotted_path.h"
#include "lib/base/error.h"
#include "lib/base/regex/path_pattern.h"
#include "lib/base/utf8.h"
#include "lib/engine/sglang/causes.h"
#include "lib/engine/sglang/copy/copied_values.h"
#include "lib/engine/sglang/kernels.h"
#include "lib/engine/sglang/names.h"
#include "lib/engine/sglang/start.h"

namespace moelora::sglang {
namespace {

// PEFT saves the base's own weight beside the factors of an embedding: that is not a loss.
bool is_base_copy(const Source& source) { return source.name.ends_with(".base_layer.weight"); }

struct FateFinder {
  Server& server;
  CpuAdapter& adapter;
  const CopiedValues* copied;  // null: nothing was
  bool any_refused = false;

  std::vector<TensorFate> find() {
    const std::vector<bool>& refused = adapter.outcome.refused;
    any_refused = std::find(refused.begin(), refused.end(), true) != refused.end();
    std::vector<TensorFate> out;
    out.reserve(adapter.sources.size());
    for (size_t i = 0; i < adapter.sources.size(); ++i) {
      const auto id = static_cast<int32_t>(i);
      const Source& source = adapter.sources[i];
      const Fate fate = fate_of(id);
      out.push_back({source.name, adapter.files[source.file], fate,
                     copied != nullptr ? copied->buffer(id) : ""});
    }
    mark_partial(out);
    return out;
  }

  Fate fate_of(int32_t id) {
    if (copied == nullptr || adapter.is_refused(id) || is_partner_refused(id)) return Fate::refused;
    const CpuAdapter::Loss& loss = adapter.outcome.lost[static_cast<size_t>(id)];
    if (is_base_copy(adapter.source(id))) return Fate::unused;
    if (loss.cause != nullptr) return unused(id, loss.cause, loss.detail);
    if (is_empty(adapter.source(id).shape)) return Fate::used;
    if (!copied->is_copied(id)) return not_written(id);
    if (copied->is_misplaced(id)) {
      adapter.add_event(&cause::silent_truncation, Effect::misplaced,
                        "its rows land where another part's belong, because the part before it is "
                        "too large",
                        {id});
      return Fate::misplaced;
    }
    if (copied->is_whole(id)) return Fate::used;
    adapter.add_event(&cause::silent_truncation, Effect::cut,
                      fmt::format("its shape {} exceeds the layer's, and SGLang cuts it without a "
                                  "word",
                                  to_string(adapter.source(id).shape)),
                      {id});
    return Fate::cut;
  }

  // One factor stands for the pair.
  bool is_partner_refused(int32_t id) const {
    if (!any_refused) return false;
    const int32_t partner = adapter.partner_of(id);
    return partner >= 0 && adapter.is_refused(partner);
  }

  Fate unused(int32_t id, const Cause* cause, std::string_view detail) {
    adapter.add_event(cause, Effect::unused, std::string(detail), {id});
    return Fate::unused;
  }

  // No buffer that a layer reads takes it.
  Fate not_written(int32_t id) {
    const std::string& name = adapter.source(id).name;
    if (!contains(name, "experts.") || contains(name, "shared_exp"))
      return unused(id, &cause::ignored_tensors,
                    "the model's class has no such module in this layer: it is dropped");
    const bool both =
        server.targets().count("gate_up_proj") != 0 && server.targets().count("down_proj") != 0;
    if (server.model().has_moe && !both)
      return unused(id, &cause::one_sided_experts,
                    "experts are adapted only where gate/up and down both are targets");
    if (!server.model().has_moe || !layer_has_experts(name))
      return unused(id, &cause::ignored_tensors,
                    "expert tensors of a layer without experts are dropped");
    return unused(id, &cause::expert_out_of_range, "no rank has an expert of this number");
  }

  bool layer_has_experts(std::string_view name) const {
    const auto layer = layer_of(name);
    for (const WrappedModule& wrapped : server.wrapping().layers[static_cast<size_t>(*layer)])
      if (wrapped.module->kind == LayerKind::fused_moe) return true;
    return false;
  }

  // Whole, but less than the buffer that it is for.
  void mark_partial(std::vector<TensorFate>& fates) const {
    for (const EventLog::Event& event : adapter.outcome.events.events()) {
      if (event.effect != Effect::partial) continue;
      for (int32_t id : event.sources) {
        TensorFate& fate = fates[static_cast<size_t>(id)];
        const bool stack = adapter.source(id).shape.size() == 3;
        if (fate.fate == Fate::used && (stack || fate.buffer.starts_with("lm_head")))
          fate.fate = Fate::partial;
      }
    }
  }
};

// The numbers that a pattern of the config gives to modules, as PEFT matches them.
PatternTable<double> pattern_of(const Json& config, std::string_view key) {
  PatternTable<double> out;
  if (const Json* pattern = config.find(key))
    for (const auto& [module, value] : pattern->members())
      if (value.is_number()) out.add(module, value.as_double());
  return out;
}

// A key that cannot be evaluated gives none: the config rules report it.
const double* value_for(const PatternTable<double>& pattern, std::string_view module) {
  try {
    return pattern.find(module);
  } catch (const Error&) {
    return nullptr;
  }
}

// SGLang scales every module by lora_alpha / r: what rsLoRA, rank_pattern and alpha_pattern say
// otherwise is not read. An event for each that changes the scale of a tensor that is there.

bool is_true(const Json& config, std::string_view key) {
  const Json* value = config.find(key);
  return value != nullptr && value->is(Json::Kind::boolean) && value->as_bool();
}

void check_rslora(CpuAdapter& adapter) {
  if (!is_true(adapter.config, "use_rslora") || adapter.r <= 1) return;
  const double root = std::sqrt(static_cast<double>(adapter.r));
  adapter.add_event(
      &cause::rslora_ignored, Effect::wrong_scale,
      fmt::format("use_rslora is true: trained with scale lora_alpha / sqrt(r) = {:.6g}, served "
                  "with lora_alpha / r = {:.6g}, {:.3g} times too weak",
                  adapter.alpha / root, adapter.scale(), root));
}

void check_patterns(CpuAdapter& adapter) {
  const PatternTable<double> ranks = pattern_of(adapter.config, "rank_pattern");
  const PatternTable<double> alphas = pattern_of(adapter.config, "alpha_pattern");
  if (ranks.empty() && alphas.empty()) return;
  for (size_t i = 0; i < adapter.sources.size(); ++i) {
    const std::string& name = adapter.sources[i].name;
    if (adapter.outcome.refused[i] || !is_factor(name)) continue;
    const std::string module = parse_tensor_name(name).module;
    const double *rank = value_for(ranks, module), *alpha = value_for(alphas, module);
    const double r = rank != nullptr ? *rank : static_cast<double>(adapter.r);
    const double trained = (alpha != nullptr ? *alpha : adapter.alpha) / r;
    if (trained == adapter.scale() || (rank == nullptr && alpha == nullptr)) continue;
    adapter.add_event(&cause::patterns_ignored, Effect::wrong_scale,
                      fmt::format("{} was trained with scale {:.6g}, served with {:.6g}",
                                  printable(module_of(name)), trained, adapter.scale()),
                      {static_cast<int32_t>(i)});
  }
}

}  // namespace

std::vector<TensorFate> tensor_fates(Server& server, size_t index) {
  return FateFinder{server, server.mutable_adapter(index), server.copied(index)}.find();
}

AdapterPlan plan_adapter(Server& server, size_t index, const PlanRequest& request) {
  server.use(index);
  AdapterPlan out;
  CpuAdapter& adapter = server.mutable_adapter(index);
  out.fates = tensor_fates(server, index);
  if (adapter.alive) {
    check_rslora(adapter);
    check_patterns(adapter);
    check_kernels(server, index, request.options, request.base_config);
  }
  out.events = adapter.outcome.events.plan_events(adapter.sources);
  return out;
}

namespace {

// What the user said, and the defaults that the plan stands on.
std::string launch_text(const Server& server, const PlanRequest& request) {
  const ServerOptions& given = request.options;
  const std::string backend = given.text("lora-backend");
  const std::string_view otherwise = server.features().csgmv_experts ? "csgmv" : "triton";
  std::string out = fmt::format("--enable-lora --lora-backend {}",
                                backend.empty() ? otherwise : std::string_view(backend));
  out += fmt::format(" --max-lora-rank {} --max-loras-per-batch {}", server.max_lora_rank(),
                     server.launch().slots);
  if (given.tp > 1) out += fmt::format(" --tp-size {}", given.tp);
  if (given.ep > 1) out += fmt::format(" --ep-size {}", given.ep);
  if (const auto shared = given.flag("experts-shared-outer-loras"))
    out += *shared ? " --experts-shared-outer-loras" : " --no-experts-shared-outer-loras";
  return out + flags_text(given, {"lora-backend", "empty-start", "experts-shared-outer-loras"});
}

ServerPlan plan_once(const PlanRequest& request) {
  Server server = start_server(request);
  ServerPlan out;
  out.launch = launch_text(server, request);
  for (size_t i = 0; i < server.count(); ++i)
    out.adapters.push_back(plan_adapter(server, i, request));
  out.adapters.resize(request.adapters.size());
  out.server = server.events();
  if (!server.pools().empty())
    out.memory = plan_memory(server.pools().front(), server.launch().slots, request.base_config);
  if (server.launch().attention_groups > 1)
    out.notes.push_back(
        "under DP attention every rank holds attention modules whole; the buffers here are those "
        "without it");
  if (!server.model().facts.run_by_oracle)
    out.notes.push_back(
        fmt::format("SGLang's class for {} was not run by the oracle: its modules are taken from "
                    "the hub's names",
                    server.model().family));
  for (std::string& note : notes_of_unknown_values(request.options, engines::sglang))
    out.notes.push_back(std::move(note));
  if (!server.features().replicated_layers)
    out.notes.push_back(
        "releases before 0.5.11 are followed by reading their code, not by running them");
  return out;
}

bool has_regex(const AdapterPlan& plan) {
  return std::any_of(plan.events.begin(), plan.events.end(),
                     [](const PlanEvent& event) { return event.cause == &cause::regex_targets; });
}

// With the last names of its tensors' modules for targets.
ServedAdapter with_listed_targets(const ServedAdapter& adapter) {
  std::set<std::string> names;
  for (const WeightFile& file : adapter.files)
    for (const TensorHeader& tensor : file.tensors)
      if (is_factor(tensor.name)) names.emplace(leaf_of(parse_tensor_name(tensor.name).module));
  ServedAdapter out = adapter;
  out.config.set("target_modules", Json::strings({names.begin(), names.end()}));
  return out;
}

void add_missing(const std::vector<PlanEvent>& from, std::vector<PlanEvent>& to) {
  const size_t before = to.size();
  for (const PlanEvent& event : from)
    if (std::none_of(to.begin(), to.begin() + static_cast<std::ptrdiff_t>(before),
                     [&](const PlanEvent& had) {
                       return had.cause == event.cause && had.tensors == event.tensors;
                     }))
      to.push_back(event);
}

}  // namespace

// An expression in target_modules ends the load before anything else is looked at. What would come
// up next, once it is a list of the adapter's modules, is said at once.
ServerPlan plan(const PlanRequest& request) {
  ServerPlan out;
  out.not_known = class_not_known(request);
  if (!out.not_known.empty()) return out;
  out = plan_once(request);
  if (std::none_of(out.adapters.begin(), out.adapters.end(), has_regex)) return out;
  std::vector<ServedAdapter> listed(request.adapters.begin(), request.adapters.end());
  for (size_t i = 0; i < listed.size(); ++i)
    if (has_regex(out.adapters[i])) listed[i] = with_listed_targets(listed[i]);
  const ServerPlan next =
      plan_once({listed, request.spec, request.base_config, request.options, request.version});
  add_missing(next.server, out.server);
  for (size_t i = 0; i < out.adapters.size(); ++i)
    add_missing(next.adapters[i].events, out.adapters[i].events);
  return out;
}

}  // namespace moelora::sglang
