#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/engine/vllm/load/copy.h"

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

// --max-lora-rank itself is cut over the ranks (--fully-sharded-loras): the server does not start.
std::optional<Fault> start_fault(const Settings& settings);

RankLoad load_on_rank(const Server& server, const Adapter& adapter, int64_t rank);

}  // namespace moelora::vllm
