#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/engine/vllm/load/adapter.h"
#include "lib/engine/vllm/load/fault.h"
#include "lib/engine/vllm/load/lora_model.h"
#include "lib/engine/vllm/server/module_buffers.h"
#include "lib/engine/vllm/server/server.h"

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
