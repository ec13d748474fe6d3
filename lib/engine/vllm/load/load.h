#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/engine/vllm/load/adapter.h"
#include "lib/engine/vllm/load/event.h"
#include "lib/engine/vllm/load/lora_model.h"
#include "lib/engine/vllm/load/set_lora.h"
#include "lib/engine/vllm/server/module_buffers.h"
#include "lib/engine/vllm/server/server.h"

namespace moelora::vllm {

// The load of one adapter on one rank: worker_manager.add_adapter(), which is what
// /v1/load_lora_adapter reaches.
struct RankLoad {
  std::vector<LoadEvent> events;    // in the server's order: the first is what it raises
  std::vector<TensorState> states;  // of file->tensors
  std::vector<Buffer> buffers;      // that hold something
  std::vector<Placement> placements;

  const LoadEvent* refusal() const { return events.empty() ? nullptr : &events.front(); }
};

// --max-lora-rank itself is cut over the ranks (--fully-sharded-loras): the server does not start.
std::optional<LoadEvent> start_event(const Settings& settings);

RankLoad load_on_rank(const Server& server, const Adapter& adapter, int64_t rank);

}  // namespace moelora::vllm
