#include "lib/engine/vllm/plan/plan.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "lib/adapter/b_order.h"
#include "lib/adapter/config/adapter_config.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/dotted_path.h"
#include "lib/base/error.h"
#include "lib/engine/vllm/load/load.h"
#include "lib/engine/vllm/load/untaken.h"

namespace moelora::vllm {
namespace {

// ---- what it does otherwise than the adapter means, without a word ------------------------------

// Modules of one group cannot be wrong alone: all pairs of a layer's experts.
std::string group_of(const std::string& module) {
  return module.substr(0, module.find(".experts"));
}

std::optional<AdapterConfig> parsed(const Json& config) {
  try {
    return parse_adapter_config(config, "adapter_config.json");
  } catch (const Error&) {
    return std::nullopt;
  }
}

bool differ(double a, double b) { return std::abs(a - b) > 1e-9 * std::abs(b); }

class Silent {
 public:
  Silent(const Server& server, const Adapter& adapter, const std::vector<TensorState>& states)
      : server_(server),
        adapter_(adapter),
        states_(states),
        keys_as_values_(keys_as_values(server.modules)) {}

  std::vector<LoadEvent> events() {
    for (uint32_t i = 0; i < states_.size(); ++i)
      if (states_[i].misfit.larger) too_large_.insert(group_of(module(i)));
    for (uint32_t i = 0; i < states_.size(); ++i) look_at(i);
    if (experts_copied_) {
      look_at_gpt_oss();
      look_at_partitions();
    }
    const auto config = parsed(adapter_.served.config);
    if (config && adapter_.config.readable) look_at_config(*config);
    return std::move(events_);
  }

 private:
  const std::string& module(uint32_t i) const { return adapter_.names[i].module; }
  const Shape& shape(uint32_t i) const { return adapter_.file->tensors[i].shape; }

  void add(const Cause* cause, Effect effect, std::vector<uint32_t> tensors, std::string detail) {
    join(events_, {cause, effect, std::move(detail), std::move(tensors), std::nullopt});
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
        return add(&cause::half_pair, Effect::unused, {i},
                   fmt::format("{} has one factor of a pair only: nothing is added", module(i)));
      case Use::overwritten:
        if (adapter_.file->tensors[i].name.ends_with("lora_B.bias"))
          return add(&cause::bias, Effect::unused, {i},
                     "this version reads it as a lora_B, which the module's lora_B then replaces");
        return add(&cause::silent_no_op, Effect::unused, {i},
                   fmt::format("{} is in the file twice: the later name wins", module(i)));
      case Use::copied:
        experts_copied_ |= module(i).find(".experts") != std::string::npos;
        look_at_keys(i);
        return look_at_shape(i);
      default:
        return;
    }
  }

  void look_at_shape(uint32_t i) {
    const Misfit& misfit = states_[i].misfit;
    if (misfit.collapsed)
      add(&cause::shared_outer_flag, Effect::cut, {i},
          fmt::format("is {}: a factor of every expert, where this server holds one for all and "
                      "keeps expert 0's",
                      to_string(shape(i))));
    if ((misfit.larger || misfit.smaller) && too_large_.contains(group_of(module(i))))
      add(&cause::tp_hides_shape, misfit.larger ? Effect::cut : Effect::partial, {i},
          fmt::format("is {}, not what the base has; at tp {} what lies beyond is cut off without "
                      "a word, at tp 1 vLLM refuses it",
                      to_string(shape(i)), server_.settings.tp));
    else if (misfit.smaller)
      add(&cause::silent_partial_copy, Effect::partial, {i},
          fmt::format("is {}, smaller than the base: the rest of vLLM's buffer stays zero",
                      to_string(shape(i))));
  }

  // A pair of v_proj beside it may hold the same: it is not the base's, but vLLM takes it.
  void look_at_keys(uint32_t i) {
    const std::string& keys = module(i);
    if (!keys_as_values_.contains(keys) &&
        !keys_as_values_.contains(server_.model.text_prefix + keys))
      return;
    const auto& names = adapter_.modules;
    if (std::find(names.begin(), names.end(), sibling(keys, "v_proj")) == names.end())
      add(&cause::silent_partial_copy, Effect::partial, {i},
          "this layer's values are its keys, and vLLM adds it to the keys alone");
  }

  void look_at_gpt_oss() {
    if (server_.model.interleaved && server_.settings.mixed)
      add(&cause::gpt_oss_mixed_mode, Effect::wrong_values, {},
          "gate's delta goes to the first half of the columns and up's to the second, the MXFP4 "
          "experts keep them interleaved");
  }

  // Slices of LoRA begin at rank x the padded partition, those of the base at rank x the plain one.
  void look_at_partitions() {
    const Settings& settings = server_.settings;
    if (!settings.mxfp4 || settings.moe_tp() == 1 || settings.has("0.33")) return;
    const int64_t plain = server_.partition();
    if (server_.intermediate() == plain) return;
    add(&cause::padded_partition, Effect::misplaced, {},
        fmt::format("at tp {} rank 1 of the base begins at row {} of the intermediate size, its "
                    "LoRA at row {}",
                    settings.tp, plain, server_.intermediate()));
  }

  void look_at_config(const AdapterConfig& config) {
    const Scaling plain{config.r, config.lora_alpha, config.use_rslora};
    for (uint32_t i = 0; i < states_.size(); ++i) {
      if (states_[i].use != Use::copied) continue;
      const std::string path = parse_tensor_name(adapter_.file->tensors[i].name).module;
      const std::optional<ExpertPath> expert = parse_expert_path(path);
      const bool stacked = expert && (expert->rest.empty() || expert->rest == "base_layer");
      const Scaling trained = config.scaling(stacked ? parameter(path) : path);
      if (!adapter_.names[i].a && !server_.settings.has("0.32"))
        look_at_scale(i, trained, plain, expert && !stacked);
      if (stacked) look_at_experts(i, trained, order_of(config, path));
    }
  }

  // The parameter's path, which PEFT's patterns are matched with, of the module in a tensor's name.
  std::string parameter(const std::string& module) const {
    constexpr std::string_view kInner = ".base_layer";
    const ExpertStorage& memory = server_.spec.memory;
    if (!module.ends_with(kInner)) return module + "." + memory.down;
    return module.substr(0, module.size() - kInner.size() + 1) +
           (memory.gate_up.empty() ? memory.up : memory.gate_up);
  }

  BOrder order_of(const AdapterConfig& config, const std::string& path) const {
    return told_b_order(config, &server_.spec, parameter(path), false)
        .order.value_or(BOrder::rank_major);
  }

  void look_at_scale(uint32_t i, const Scaling& trained, const Scaling& plain, bool numbered) {
    const double used = numbered ? adapter_.config.expert_scaling : adapter_.config.scaling;
    if (differ(trained.value(), plain.value()))
      add(&cause::patterns_ignored, Effect::wrong_scale, {i},
          fmt::format("was trained with alpha {} and rank {}, a scale of {:g}; vLLM takes {:g} for "
                      "every module",
                      trained.alpha, trained.rank, trained.value(), used));
    if (differ(used, plain.value()))
      add(&cause::rslora_experts, Effect::wrong_scale, {i},
          fmt::format("rsLoRA scales with {:g}, vLLM takes alpha / r = {:g} for these experts",
                      plain.value(), used));
  }

  void look_at_experts(uint32_t i, const Scaling& trained, BOrder meant) {
    const bool a = adapter_.names[i].a;
    if (shape(i).size() != 2) return;
    const int64_t rows = shape(i)[a ? 0 : 1], experts = server_.spec.experts;
    if (rows % experts != 0 || trained.rank <= 0) return;
    if (rows != experts * trained.rank && rows % trained.rank == 0)
      add(&cause::silent_partial_copy, Effect::misplaced, {i},
          fmt::format("{} is {} experts of rank {}; vLLM reads {} experts of rank {}",
                      to_string(shape(i)), rows / trained.rank, trained.rank, experts,
                      rows / experts));
    else if (!a && experts > 1 && rows > experts)
      look_at_order(i, meant);
  }

  void look_at_order(uint32_t i, BOrder meant) {
    const bool rank_major = server_.settings.has("0.14");
    if ((meant == BOrder::rank_major) == rank_major) return;
    if (rank_major)
      add(&cause::b_order_declared_other, Effect::wrong_values, {i},
          "lora_B_layout says that each expert's columns lie together; vLLM reads column k*E + e");
    else
      add(&cause::b_order_old_engine, Effect::wrong_values, {i},
          "this version reads the columns of each expert together; PEFT writes column k*E + e");
  }

  const Server& server_;
  const Adapter& adapter_;
  const std::vector<TensorState>& states_;
  std::set<std::string> keys_as_values_, too_large_;
  std::map<Unused, size_t> unused_;  // index in events_
  bool experts_copied_ = false;
  std::vector<LoadEvent> events_;
};

// ---- all ranks as one ---------------------------------------------------------------------------

struct AllRanks {
  std::vector<LoadEvent> events;
  std::vector<TensorState> states;
  std::vector<Buffer> buffers;  // that `states` name

  void add(RankLoad load) {
    for (LoadEvent& event : load.events) join(events, std::move(event));
    if (states.empty()) {
      states = std::move(load.states);
      buffers = std::move(load.buffers);
    } else {
      for (size_t i = 0; i < states.size(); ++i) merge(states[i], load.states[i], load.buffers);
    }
  }

  void merge(TensorState& all, const TensorState& mine, const std::vector<Buffer>& of_mine) {
    all.misfit |= mine.misfit;
    if (mine.use <= all.use) return;
    all.use = mine.use;
    if (mine.buffer >= of_mine.size()) return;
    all.buffer = static_cast<uint32_t>(buffers.size());
    buffers.push_back(of_mine[mine.buffer]);
  }
};

Fate fate_of(const TensorState& state) {
  if (state.use == Use::refused || state.use == Use::unread) return Fate::refused;
  if (state.use != Use::copied) return Fate::unused;
  if (state.misfit.smaller && state.misfit.larger) return Fate::misplaced;
  if (state.misfit.larger || state.misfit.collapsed) return Fate::cut;
  return state.misfit.smaller ? Fate::partial : Fate::used;
}

PlanEvent event_of(const WeightFile* file, LoadEvent event) {
  PlanEvent out;
  out.cause = event.cause;
  out.effect = event.effect;
  out.detail = std::move(event.detail);
  out.refusal = std::move(event.refusal);
  for (uint32_t tensor : event.tensors) out.tensors.push_back(file->tensors[tensor].name);
  std::sort(out.tensors.begin(), out.tensors.end());
  out.tensors.erase(std::unique(out.tensors.begin(), out.tensors.end()), out.tensors.end());
  return out;
}

// By a server that does not start.
AdapterPlan nothing_loaded(const ServedAdapter& served) {
  AdapterPlan out;
  for (const WeightFile& file : served.files)
    for (const TensorHeader& tensor : file.tensors)
      out.fates.push_back({tensor.name, file.name, Fate::refused, ""});
  return out;
}

void mark_misplaced(const std::vector<LoadEvent>& events, std::vector<TensorFate>& fates) {
  for (const LoadEvent& event : events)
    if (event.effect == Effect::misplaced)
      for (uint32_t tensor : event.tensors) fates[tensor].fate = Fate::misplaced;
}

}  // namespace

AdapterPlan plan_adapter(const Server& server, const ServedAdapter& served) {
  if (!server.model.takes_lora) return nothing_loaded(served);
  const Adapter adapter = open_adapter(server, served);
  AllRanks all;
  if (auto event = start_event(server.settings)) all.events.push_back(std::move(*event));
  const int64_t ranks = adapter.events.empty() ? server.settings.tp : 1;  // else all raise the same
  for (int64_t rank = 0; rank < ranks; ++rank) all.add(load_on_rank(server, adapter, rank));
  const bool refused = !all.events.empty();
  AdapterPlan out;
  for (size_t i = 0; i < all.states.size(); ++i) {
    const TensorState& state = all.states[i];
    TensorFate& fate = out.fates.emplace_back();
    fate.tensor = adapter.file->tensors[i].name;
    fate.file = adapter.file->name;
    fate.fate = refused ? Fate::refused : fate_of(state);
    if (!refused && state.buffer < all.buffers.size()) fate.buffer = all.buffers[state.buffer].name;
  }
  std::vector<LoadEvent> silent;
  if (adapter.events.empty() || adapter.events.front().refusal->stage == "validate")
    silent = Silent(server, adapter, all.states).events();
  if (!refused) mark_misplaced(silent, out.fates);
  for (auto* events : {&all.events, &silent})
    for (LoadEvent& event : *events) out.events.push_back(event_of(adapter.file, std::move(event)));
  return out;
}

}  // namespace moelora::vllm
