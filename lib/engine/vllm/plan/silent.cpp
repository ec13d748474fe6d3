#include "lib/engine/vllm/plan/silent.h"

#include <fmt/format.h>

#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "lib/adapter/adapter_config.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/error.h"
#include "lib/engine/vllm/causes.h"
#include "lib/engine/vllm/load/config.h"
#include "lib/engine/vllm/load/untaken.h"

namespace moelora::vllm {
namespace {

// Modules of one group cannot be wrong alone: all pairs of a layer's experts.
std::string group_of(const std::string& module) {
  const size_t experts = module.find(".experts");
  return experts == std::string::npos ? module : module.substr(0, experts);
}

class Silent {
 public:
  Silent(const Server& server, const Adapter& adapter, const std::vector<TensorState>& states)
      : server_(server), adapter_(adapter), states_(states) {}

  std::vector<LoadEvent> events() {
    for (uint32_t i = 0; i < states_.size(); ++i)
      if (states_[i].misfit.larger) too_large_.insert(group_of(module(i)));
    for (uint32_t i = 0; i < states_.size(); ++i) look_at(i);
    if (experts_copied_) {
      look_at_gpt_oss();
      look_at_partitions();
    }
    return std::move(events_);
  }

 private:
  const std::string& module(uint32_t i) const { return adapter_.names[i].module; }
  std::string shape(uint32_t i) const { return to_string(adapter_.file->tensors[i].shape); }

  void add(const Cause* cause, Effect effect, uint32_t tensor, std::string detail) {
    for (LoadEvent& event : events_)
      if (event.cause == cause && event.effect == effect) return event.tensors.push_back(tensor);
    events_.push_back({cause, effect, std::move(detail), {tensor}, std::nullopt});
  }

  // Tensors that are unused for one reason are one event.
  void add_unused(uint32_t tensor) {
    const Unused why = why_unused(server_, module(tensor));
    const auto [at, fresh] = unused_.try_emplace(why, events_.size());
    if (fresh)
      events_.push_back(
          {cause_of(why), Effect::unused, text_of(why, server_, module(tensor)), {}, std::nullopt});
    events_[at->second].tensors.push_back(tensor);
  }

  void look_at(uint32_t i) {
    const TensorState& state = states_[i];
    switch (state.use) {
      case Use::loaded:
        return add_unused(i);
      case Use::half:
        return add(&cause::half_pair, Effect::unused, i,
                   fmt::format("{} has one factor of a pair only: nothing is added", module(i)));
      case Use::overwritten:
        return add(&cause::silent_no_op, Effect::unused, i,
                   fmt::format("{} is in the file twice: the later name wins", module(i)));
      case Use::copied:
        experts_copied_ |= module(i).find(".experts") != std::string::npos;
        return look_at_shape(i);
      default:
        return;
    }
  }

  void look_at_shape(uint32_t i) {
    const Misfit& misfit = states_[i].misfit;
    if (misfit.collapsed)
      add(&cause::shared_outer_flag, Effect::cut, i,
          fmt::format("is {}: a factor of every expert, where this server holds one for all and "
                      "keeps expert 0's",
                      shape(i)));
    if ((misfit.larger || misfit.smaller) && too_large_.contains(group_of(module(i))))
      add(&cause::tp_hides_shape, misfit.larger ? Effect::cut : Effect::partial, i,
          fmt::format("is {}, not what the base has; at tp {} what lies beyond is cut off without "
                      "a word, at tp 1 vLLM refuses it",
                      shape(i), server_.settings.tp));
    else if (misfit.smaller)
      add(&cause::silent_partial_copy, Effect::partial, i,
          fmt::format("is {}, smaller than the base: the rest of vLLM's buffer stays zero",
                      shape(i)));
  }

  void look_at_gpt_oss() {
    if (server_.model.interleaved && server_.settings.mixed)
      events_.push_back({&cause::gpt_oss_mixed_mode,
                         Effect::wrong_values,
                         "gate's delta goes to the first half of the columns and up's to the "
                         "second, the MXFP4 experts keep them interleaved",
                         {},
                         std::nullopt});
  }

  // Slices of LoRA begin at rank x the padded partition, those of the base at rank x the plain one.
  void look_at_partitions() {
    const Settings& settings = server_.settings;
    if (!settings.mxfp4 || settings.moe_tp() == 1) return;
    const int64_t plain = server_.spec.intermediate / settings.moe_tp();
    if (server_.intermediate() == plain) return;
    events_.push_back({&cause::padded_partition,
                       Effect::misplaced,
                       fmt::format("at tp {} rank 1 of the base begins at row {} of the "
                                   "intermediate size, its LoRA at row {}",
                                   settings.tp, plain, server_.intermediate()),
                       {},
                       std::nullopt});
  }

  const Server& server_;
  const Adapter& adapter_;
  const std::vector<TensorState>& states_;
  std::set<std::string> too_large_;
  std::map<Unused, size_t> unused_;  // index in events_
  bool experts_copied_ = false;
  std::vector<LoadEvent> events_;
};

// ---- where the config means something else ------------------------------------------------------

std::optional<AdapterConfig> parsed(const Json& config) {
  try {
    return parse_adapter_config(config, "adapter_config.json");
  } catch (const Error&) {
    return std::nullopt;
  }
}

bool differ(double a, double b) { return std::abs(a - b) > 1e-9 * std::abs(b); }

class Scales {
 public:
  Scales(const Server& server, const Adapter& adapter, const std::vector<TensorState>& states,
         const AdapterConfig& config)
      : server_(server),
        adapter_(adapter),
        states_(states),
        config_(config),
        plain_{config.r, config.lora_alpha, config.use_rslora} {}

  std::vector<LoadEvent> events() {
    for (uint32_t i = 0; i < states_.size(); ++i) {
      if (states_[i].use != Use::copied) continue;
      const std::optional<ExpertPath> expert = parse_expert_path(module(i));
      const bool stacked = expert && (expert->rest.empty() || expert->rest == "base_layer");
      const Scaling trained = config_.scaling(stacked ? parameter(module(i)) : module(i));
      if (!adapter_.names[i].a) look_at_scale(i, trained, expert && !stacked);
      if (stacked) look_at_experts(i, trained);
    }
    return std::move(events_);
  }

 private:
  // As PEFT's patterns see it.
  std::string module(uint32_t i) const {
    return parse_tensor_name(adapter_.file->tensors[i].name).module;
  }

  // The parameter's path, which PEFT's patterns are matched with, of the module in a tensor's name.
  std::string parameter(const std::string& module) const {
    constexpr std::string_view kInner = ".base_layer";
    const ExpertStorage& memory = server_.spec.memory;
    if (!module.ends_with(kInner)) return module + "." + memory.down;
    return module.substr(0, module.size() - kInner.size() + 1) +
           (memory.gate_up.empty() ? memory.up : memory.gate_up);
  }

  void add(const Cause* cause, Effect effect, uint32_t tensor, std::string detail) {
    for (LoadEvent& event : events_)
      if (event.cause == cause) return event.tensors.push_back(tensor);
    events_.push_back({cause, effect, std::move(detail), {tensor}, std::nullopt});
  }

  void look_at_scale(uint32_t i, const Scaling& trained, bool numbered) {
    const double used = numbered ? adapter_.config.expert_scaling : adapter_.config.scaling;
    if (differ(trained.value(), plain_.value()))
      add(&cause::patterns_ignored, Effect::wrong_scale, i,
          fmt::format("was trained with alpha {} and rank {}, a scale of {:g}; vLLM takes {:g} for "
                      "every module",
                      trained.alpha, trained.rank, trained.value(), used));
    if (differ(used, plain_.value()))
      add(&cause::rslora_experts, Effect::wrong_scale, i,
          fmt::format("rsLoRA scales with {:g}, vLLM takes alpha / r = {:g} for these experts",
                      plain_.value(), used));
  }

  void look_at_experts(uint32_t i, const Scaling& trained) {
    const bool a = adapter_.names[i].a;
    const Shape& shape = adapter_.file->tensors[i].shape;
    if (shape.size() != 2) return;
    const int64_t rows = a ? shape[0] : shape[1], experts = server_.spec.experts;
    if (rows % experts != 0 || trained.rank <= 0) return;
    if (rows != experts * trained.rank && rows % trained.rank == 0)
      add(&cause::silent_partial_copy, Effect::misplaced, i,
          fmt::format("{} is {} experts of rank {}; vLLM reads {} experts of rank {}",
                      to_string(shape), rows / trained.rank, trained.rank, experts,
                      rows / experts));
    else if (!a && experts > 1 && rows > experts)
      look_at_order(i);
  }

  void look_at_order(uint32_t i) {
    const BOrder meant = config_.b_order.value_or(BOrder::rank_major);
    const bool rank_major = server_.settings.rank_major_b;
    if ((meant == BOrder::rank_major) == rank_major) return;
    if (rank_major)
      add(&cause::b_order_declared_other, Effect::wrong_values, i,
          "lora_B_layout says that each expert's columns lie together; vLLM reads column k*E + e");
    else
      add(&cause::b_order_old_engine, Effect::wrong_values, i,
          "this version reads the columns of each expert together; PEFT writes column k*E + e");
  }

  const Server& server_;
  const Adapter& adapter_;
  const std::vector<TensorState>& states_;
  const AdapterConfig& config_;
  const Scaling plain_;
  std::vector<LoadEvent> events_;
};

}  // namespace

std::vector<LoadEvent> silent_events(const Server& server, const Adapter& adapter,
                                     const std::vector<TensorState>& states) {
  return Silent(server, adapter, states).events();
}

std::vector<LoadEvent> scale_events(const Server& server, const Adapter& adapter,
                                    const std::vector<TensorState>& states) {
  const auto config = parsed(adapter.served.config);
  if (!config || !adapter.config.readable) return {};
  return Scales(server, adapter, states, *config).events();
}

}  // namespace moelora::vllm
