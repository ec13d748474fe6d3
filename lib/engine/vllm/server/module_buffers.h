#pragma once

#include <string>
#include <vector>

#include "lib/engine/engine.h"
#include "lib/engine/vllm/server/module.h"
#include "lib/engine/vllm/server/server.h"

namespace moelora::vllm {

// One slot of a buffer on one rank, named as the server's attribute:
// "model.layers.0.mlp.experts.w13_lora_a_stacked.0" [E, R, H]; of other modules [R, in], [out, R].
struct Buffer {
  std::string name;
  Shape shape;
};

// What a module holds of adapters, used or not, in the order in which it is written:
// create_lora_weights(). Attributes count slices, children or not; w13's 0 is gate and 1 is up, or
// 0 is both (stacked experts) or up alone (experts without a gate). None for Kind::unknown.
std::vector<Buffer> module_buffers(const Server& server, const Module& module);

// Rows of a child's lora_B that one buffer of a dense module holds: `rows` from `first`, spread
// over the ranks in `parts` parts.
struct Slice {
  size_t child = 0;
  int64_t first = 0, rows = 0, parts = 1;
};
std::vector<Slice> slices_of(const Module& module);

// What one rank allocates for adapters as soon as LoRA is enabled, whatever the adapters hold.
MemoryPlan memory_plan(const Server& server, const PlanRequest& request);

}  // namespace moelora::vllm
