#pragma once

#include <string>
#include <vector>

#include "lib/engine/vllm/load/lora_model.h"

namespace moelora::vllm {

// LoRAModelManager._create_merged_loras_inplace: children become the entries of their module,
// scales go into lora_B, stacked experts are cut into experts (stages pack, stack3d, convert3d).
// A module that is refused is taken out, so that the next ones can be told too.
class PackStep {
 public:
  PackStep(const Server& server, const Adapter& adapter, int64_t rank, LoraModel& model,
           std::vector<TensorState>& states, std::vector<Fault>& faults)
      : server_(server),
        adapter_(adapter),
        rank_(rank),
        model_(model),
        states_(states),
        faults_(faults) {}

  void run();

 private:
  void pack_dense(const Wanted& wanted);
  void pack_experts(const Module& module, const Wanted& wanted);
  void pack_shared_outer(const Module& module, const Wanted& wanted);
  void optimize();
  void stack_experts(const Module& module, const Wanted& wanted);
  void convert_experts(const Module& module, const Wanted& wanted);
  void pin();

  Lora& put(const Wanted& wanted);  // the module's packed entry, in place of one of its name
  View stack(const std::vector<Lora*>& experts, bool a) const;
  View per_expert_a(const View& a) const;
  View per_expert_b(const View& b) const;
  bool same_shapes(const Lora& one, const Lora& other) const;

  // Takes `loras` out; the finding names the tensors of `concerned` (of all of them where empty).
  void refuse(const Cause* cause, std::string_view stage, const Raised& raised, std::string detail,
              const std::vector<Lora*>& loras, const std::vector<Lora*>& concerned = {});
  void refuse_stack(const Module& module, const Raised& raised,
                    const std::vector<std::vector<Lora*>>& by_word);
  void refuse_stacked(const Module& module, std::string_view stage, const Raised& raised,
                      const std::vector<Lora*>& loras);
  const std::string& name_of(const Lora& lora) const { return adapter_.modules[lora.module]; }

  const Server& server_;
  const Adapter& adapter_;
  int64_t rank_;
  LoraModel& model_;
  std::vector<TensorState>& states_;
  std::vector<Fault>& faults_;
};

}  // namespace moelora::vllm
