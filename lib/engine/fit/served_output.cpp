#include "lib/engine/fit/served_output.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "lib/adapter/tensor_name.h"
#include "lib/base/error.h"
#include "lib/engine/fit/step.h"
#include "lib/engine/vllm/causes.h"
#include "lib/io/shard_split.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

std::string last_component(const std::string& path) {
  const std::filesystem::path p(path);
  return (p.has_filename() ? p.filename() : p.parent_path().filename()).string();
}

std::string refused_text(const PlanEvent& event) {
  const Refusal& refusal = *event.refusal;
  return fmt::format("would refuse the output{}: {}",
                     refusal.first_use ? ", at the first request" : "", refusal_text(refusal));
}

std::string altered_text(const PlanEvent& event) {
  std::string out = "would not compute what the output means: " + event.detail;
  if (!event.tensors.empty()) out += fmt::format(" ({})", fit::some_of(event.tensors));
  return out;
}

// Which --drop would take these tensors out; "" for none.
std::string drop_for(const std::vector<std::string>& tensors, const ModelSpec& spec) {
  for (const std::string& name : tensors) {
    const LinearSpec* linear = spec.find_linear(parse_tensor_name(name).module);
    if (linear == nullptr) continue;
    if (linear->role == Role::router || linear->role == Role::shared_expert_gate) return "router";
    if (linear->role == Role::lm_head || linear->role == Role::embedding) return "embeddings";
  }
  return "";
}

Hint hint_for(const PlanEvent& event, const Conversion& c, const FitOptions& options) {
  if (event.cause == &vllm::cause::tensor_loader)
    return {"leave ", Option::max_shard_size, " out: it reads one file"};
  if (const std::string drop = drop_for(event.tensors, c.input.base->spec); !drop.empty())
    return {Option::drop, fmt::format(" {} leaves it out and says what is lost", drop)};
  if (!options.to.empty())
    return {"leave ", Option::to, " out: the engine's own layout is then chosen"};
  return {};
}

[[noreturn]] void refuse(const PlanEvent& event, const Conversion& c, const FitOptions& options) {
  throw Error(options.engine.label(), event.refusal ? refused_text(event) : altered_text(event),
              hint_for(event, c, options));
}

// The server that is judged with: started for this rank where nothing else is said, as the notes
// ask for.
ServerOptions server_for(const Conversion& c, const FitOptions& options) {
  ServerOptions out = options.server;
  const Json* rank = c.config.find("r");
  const EngineFit& fit = *options.engine.engine->fit;
  if (!out.max_lora_rank && !fit.legal_ranks.empty() && rank != nullptr)
    out.max_lora_rank = max_rank_for(fit, rank->as_int());
  return out;
}

}  // namespace

ServedAdapter served_adapter(const Conversion& c, const std::string& out, uint64_t max_shard_size) {
  ServedAdapter served;
  served.name = last_component(out);
  served.folder = out;
  served.has_config = true;
  served.config = c.config;
  for (const Shard& shard : split_shards("adapter_model", c.tensors, max_shard_size)) {
    WeightFile file{shard.file, {}};
    for (const NamedTensor* tensor : shard.tensors)
      file.tensors.push_back({tensor->first, tensor->second.dtype(), tensor->second.shape()});
    served.files.push_back(std::move(file));
  }
  return served;
}

void check_served(const Conversion& c, const std::string& out, const FitOptions& options,
                  uint64_t max_shard_size) {
  if (options.engine.engine->plan == nullptr) return;
  const ServedAdapter served = served_adapter(c, out, max_shard_size);
  const BaseModel& base = *c.input.base;
  const ServerOptions server = server_for(c, options);
  const ServerPlan plan = options.engine.engine->plan(
      {{&served, 1}, base.spec, base.config, server, options.engine.version});
  for (const PlanEvent& event : plan.server) refuse(event, c, options);
  for (const AdapterPlan& adapter : plan.adapters) {
    if (const PlanEvent* refusal = adapter.first_refusal()) refuse(*refusal, c, options);
    for (const PlanEvent& event : adapter.events) refuse(event, c, options);
    for (const TensorFate& fate : adapter.fates)
      if (fate.fate != Fate::used)
        throw Error(options.engine.label(),
                    fmt::format("would leave {} {}", fate.tensor, fate_name(fate.fate)));
  }
}

}  // namespace moelora
