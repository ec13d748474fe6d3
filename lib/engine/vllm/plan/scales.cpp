#include "lib/engine/vllm/plan/scales.h"

#include <fmt/format.h>

#include <cmath>

#include "lib/adapter/adapter_config.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/error.h"
#include "lib/engine/vllm/causes.h"

namespace moelora::vllm {
namespace {

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

  std::vector<Fault> faults() {
    for (uint32_t i = 0; i < states_.size(); ++i) {
      if (states_[i].use != Use::copied) continue;
      const std::optional<ExpertPath> expert = parse_expert_path(module(i));
      const bool stacked = expert && (expert->rest.empty() || expert->rest == "base_layer");
      const Scaling trained = config_.scaling(stacked ? parameter(module(i)) : module(i));
      if (!adapter_.names[i].a) look_at_scale(i, trained, expert && !stacked);
      if (stacked) look_at_experts(i, trained);
    }
    return std::move(faults_);
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
    for (Fault& fault : faults_)
      if (fault.cause == cause) return fault.tensors.push_back(tensor);
    faults_.push_back({cause, effect, std::move(detail), {tensor}, std::nullopt});
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
  std::vector<Fault> faults_;
};

}  // namespace

std::vector<Fault> scale_faults(const Server& server, const Adapter& adapter,
                                const std::vector<TensorState>& states) {
  const auto config = parsed(adapter.served.config);
  if (!config || !adapter.config.readable) return {};
  return Scales(server, adapter, states, *config).faults();
}

}  // namespace moelora::vllm
