#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/adapter/convert.h"
#include "lib/engine/buffers.h"
#include "lib/engine/served_adapter.h"

namespace moelora {

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
};

// One thing the server does otherwise than the adapter means.
struct BufferLoss {
  std::string cause;   // as BufferOptions::name_of says it
  std::string effect;  // "unused", "cut" ...
  std::string detail;
  std::vector<std::string> tensors;
};

// What will be written, nothing written yet.
struct BufferConversion {
  EngineChoice engine;  // that holds such buffers
  std::vector<std::string> server_pairs;
  int64_t tp_rank = 0;
  std::vector<FilePtr> inputs;  // every file that was read
  TensorMap buffers;
  std::vector<BufferLoss> losses;
  std::vector<std::string> notes;  // the losses and what the plan does not cover, for people
};

// Throws Error for options that do not go together, for an unknown base model, and with the
// server's own words for an adapter that it refuses.
BufferConversion plan_buffers(const std::string& in, const BufferOptions& options);

struct WriteBuffersOptions {
  OutputOptions output;
  WriteOptions weights;
  bool verify = false;  // read the files back and compare every buffer's digest
};

// Writes the output folder: buffers.safetensors (or shards) and conversion.json, but no
// adapter_config.json, so that nobody takes it for an adapter.
WrittenConversion write_buffers(const BufferConversion& conversion, const std::string& out,
                                const WriteBuffersOptions& options);

}  // namespace moelora
