#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/adapter/convert.h"
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

// Adds a block, but not one of zeros.
void add_block(ServedBlock block, std::vector<ServedBlock>& out);

// --to sglang-pool, --to vllm-stacked: an adapter as one rank of a server holds it. Nothing is
// repaired: what the server loses is lost here too, and said.

// The engine that holds buffers of this form ("sglang-pool"); null when unknown.
const Engine* find_buffer_engine(std::string_view form);

struct BufferOptions {
  std::string to;                         // a BufferForm's id
  std::string engine;                     // --for; "" for the newest of the form's engine
  std::vector<std::string> server_pairs;  // "KEY=VALUE" as given; "tp-rank=N" says which rank
  std::string base;                       // --base; "" to look at base_model_name_or_path
  std::vector<std::string> model_specs;
  // What a cause is called in the report and the notes; its words where null. The tools give the
  // name of the rule that explains it, which this floor does not know.
  std::string_view (*name_of)(const Cause& cause) = nullptr;
  bool follow_base = true;      // base_model_name_or_path may be a folder of this machine
  Links links = Links::within;  // of weights and configs
};

// What will be written, nothing written yet.
struct BufferConversion {
  EngineChoice engine;  // that holds such buffers
  std::vector<std::string> server_pairs;
  int64_t tp_rank = 0;
  std::vector<FilePtr> inputs;  // every file that was read
  TensorMap buffers;
  std::vector<Json> losses;        // what the server does otherwise than the adapter means
  std::vector<std::string> notes;  // the losses and what the plan does not cover, for people
};

// Throws Error for options that do not go together, for an unknown base model, and with the
// server's own words for an adapter that it refuses.
BufferConversion plan_buffers(const std::string& in, const BufferOptions& options);

struct WriteBuffersOptions {
  OutputOptions output;
  WriteOptions weights;
  bool verify = false;  // read the files back and compare every buffer's digest
  std::function<void(const WrittenConversion& written)> ready = {};  // of WriteFolderOptions
};

// Writes the output folder: buffers.safetensors (or shards) and conversion.json, but no
// adapter_config.json, so that nobody takes it for an adapter.
WrittenConversion write_buffers(const BufferConversion& conversion, const std::string& out,
                                const WriteBuffersOptions& options);

}  // namespace moelora
