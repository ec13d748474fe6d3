#pragma once

#include <string>
#include <vector>

#include "lib/engine/vllm/copy.h"

namespace moelora::vllm {

// The load of one adapter on one rank: worker_manager.add_adapter(), which is what
// /v1/load_lora_adapter reaches.
struct RankLoad {
  std::vector<Fault> faults;        // in the server's order: the first is what it raises
  std::vector<TensorState> states;  // of file->tensors
  std::vector<Buffer> buffers;      // that hold something
  std::vector<Placement> placements;
  std::vector<std::string> set_modules;

  const Fault* refusal() const { return faults.empty() ? nullptr : &faults.front(); }
};
RankLoad load_on_rank(const Server& server, const Adapter& adapter, int64_t rank);

}  // namespace moelora::vllm
