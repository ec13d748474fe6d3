#pragma once

#include <string>
#include <vector>

#include "lib/engine/vllm/load/set_lora.h"

namespace moelora::vllm {

// The parts, one below the other along `axis`, are elements [0, count) of the buffer; a dim of
// extent 1 where `count` is more is repeated. What no placement covers is zero. A view's values are
// those of its sources, rounded to the server's type, then times its scale and rounded again.
struct Placement {
  uint32_t buffer;
  size_t axis;
  std::vector<View> parts;
  Shape count;
};

// Every module's set_lora(): what is cut for this rank and written where (stage copy). The buffers
// of a module without an entry are zero. A module that is refused leaves no placement.
class CopyStep {
 public:
  CopyStep(const Server& server, const Adapter& adapter, int64_t rank, LoraModel& model,
           std::vector<TensorState>& states, std::vector<Fault>& faults)
      : server_(server),
        adapter_(adapter),
        rank_(rank),
        model_(model),
        states_(states),
        faults_(faults) {}

  void run();

  std::vector<Buffer> buffers;
  std::vector<Placement> placements;
  std::vector<std::string> set_modules;

 private:
  void copy(const Module& module, const Lora& lora, Slot& slot) const;
  void accept(const Module& module, const Lora& lora, Slot& slot);
  void refuse(const Module& module, const Wanted& wanted, const Lora& lora, const Slot& slot,
              const Raised& raised);
  std::vector<uint32_t> sources_of(const Wanted& wanted, const Lora& lora);
  const Cause* cause_of(const Module& module, const Lora& lora, const Slot& slot,
                        const Raised& raised) const;
  std::string what_went_wrong(const Module& module, const Lora& lora, const Slot& slot,
                              const Cause* cause) const;

  const Server& server_;
  const Adapter& adapter_;
  int64_t rank_;
  LoraModel& model_;
  std::vector<TensorState>& states_;
  std::vector<Fault>& faults_;
};

}  // namespace moelora::vllm
