#include "lib/engine/vllm/plan/silent.h"

#include <fmt/format.h>

#include <map>
#include <set>

#include "lib/engine/vllm/causes.h"

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

  std::vector<Fault> faults() {
    for (uint32_t i = 0; i < states_.size(); ++i)
      if (states_[i].misfit.larger) too_large_.insert(group_of(module(i)));
    for (uint32_t i = 0; i < states_.size(); ++i) look_at(i);
    if (experts_copied_) {
      look_at_gpt_oss();
      look_at_partitions();
    }
    return std::move(faults_);
  }

 private:
  const std::string& module(uint32_t i) const { return adapter_.names[i].module; }
  std::string shape(uint32_t i) const { return to_string(adapter_.file->tensors[i].shape); }

  void add(const Cause* cause, Effect effect, uint32_t tensor, std::string detail) {
    for (Fault& fault : faults_)
      if (fault.cause == cause && fault.effect == effect) return fault.tensors.push_back(tensor);
    faults_.push_back({cause, effect, std::move(detail), {tensor}, std::nullopt});
  }

  // Tensors that are unused for one reason are one fault.
  void add_unused(uint32_t tensor) {
    const Unused why = why_unused(server_, module(tensor));
    const auto [at, fresh] = unused_.try_emplace(why, faults_.size());
    if (fresh)
      faults_.push_back(
          {cause_of(why), Effect::unused, text_of(why, server_, module(tensor)), {}, std::nullopt});
    faults_[at->second].tensors.push_back(tensor);
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
    if (server_.is_gpt_oss() && server_.settings.mixed)
      faults_.push_back({&cause::gpt_oss_mixed_mode,
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
    faults_.push_back({&cause::padded_partition,
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
  std::map<Unused, size_t> unused_;  // index in faults_
  bool experts_copied_ = false;
  std::vector<Fault> faults_;
};

}  // namespace

std::vector<Fault> silent_faults(const Server& server, const Adapter& adapter,
                                 const std::vector<TensorState>& states) {
  return Silent(server, adapter, states).faults();
}

}  // namespace moelora::vllm
