#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/engine/engine.h"

namespace moelora {

// An adapter with its values, for an engine that fills its buffers with them.
struct BufferRequest {
  const ServedAdapter& adapter;
  const std::vector<TensorMap>& values;  // of adapter.files, in their order; lazy, files stay open
  const ModelSpec& spec;
  const Json& base_config;
  const ServerOptions& options;
  const EngineVersion& version;
  int64_t tp_rank = 0;  // in [0, options.tp); with expert parallelism its experts follow from it

  PlanRequest plan() const { return {{&adapter, 1}, spec, base_config, options, version}; }
};

// What one rank of a server holds of an adapter, as files. No adapter can be read from it again:
// scales are folded in, ranks padded, and what the server loses is gone.
struct BufferForm {
  std::string_view id;             // --to: "sglang-pool"
  std::string_view names, shapes;  // for people
};

// What one rank of a server holds of the adapter, after the first request with it. Keys and shapes
// are the server's (facts in lib/engine/sglang/pool/pool.h, lib/engine/vllm/load/set_lora.h); a
// slot's dimension is left out. Every tensor is lazy and of the type the server runs in (BF16): its
// values are those of the server bit for bit, zero where nothing was written.
struct RankBuffers {
  std::optional<Refusal> refused;  // the load ends here; then there are no buffers
  TensorMap buffers;
};

// A block of a delta as the server's kernels compute it from what a rank holds: `scale * b a` is
// rows [out_first, out_first + out) and columns [in_first, in_first + in) of the delta of `module`.
// Known defects of the version are in it: a block's `a` is the one that the kernel really reads.
// Together the blocks of all ranks are the delta: what none covers is zero, and where some overlap
// (a replicated module, an expert that is on every rank) they hold the same.
struct ServedBlock {
  std::string module;   // canonical path of a dense module, or the projection: "gate_proj"
  int layer = -1;       // of an expert's projection
  int64_t expert = -1;  // of the whole model; -1: no routed expert
  int64_t out_first = 0, in_first = 0;
  int64_t out_step = 1;  // row i of b is row out_first + i * out_step: B that a kernel interleaves
  Tensor a, b;           // [r, in], [out, r], BF16
  double scale = 1;      // what the kernel multiplies by; 1 where the buffer holds scaled values
  std::string_view defect = "";  // what the kernel does otherwise than the buffers say; "" for none
};

}  // namespace moelora
