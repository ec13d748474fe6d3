#pragma once

#include <string>

#include "lib/engine/write_buffers.h"
#include "tools/tool.h"

namespace moelora {

// lora-convert adapter IN OUT --to sglang-pool (or vllm-stacked).
struct BuffersCommand {
  const CommonOptions& common;
  std::string in, out;
  BufferOptions options;
  WriteBuffersOptions folder;
  bool dry_run = false;

  // What is lost goes to stderr; exit status 0 whatever it is.
  int run() const;
};

}  // namespace moelora
