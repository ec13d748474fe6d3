#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "lib/engine/engine.h"
#include "lib/engine/python_text.h"

namespace moelora::sglang {

// What --server-option takes; the rows stand in options.cpp, beside what reads them.
std::span<const ServerOption> server_options();

// The command line, as far as LoRA looks at it.
struct Launch {
  int64_t tp = 1, ep = 1;
  int64_t slots = 8;                      // --max-loras-per-batch; the base model takes one
  std::optional<int64_t> max_lora_rank;   // nullopt: the largest of the adapters'
  std::optional<NameSet> target_modules;  // {"all"}; nullopt: those of the adapters
  std::optional<bool> shared_outer;       // --[no-]experts-shared-outer-loras; nullopt: detect
  bool strict = false;                    // --lora-strict-loading
  int64_t attention_groups = 1;           // --attn-dp-size: above 1 is DP attention
  bool pinned = false;                    // adapters are given with "pinned": true
  bool replicated_q = false;              // --dcp-replicate-q-proj
};

Launch launch_of(const ServerOptions& options);
bool starts_empty(const ServerOptions& options);

}  // namespace moelora::sglang
