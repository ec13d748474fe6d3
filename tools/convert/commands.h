#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "lib/base/dtype.h"
#include "tools/tool.h"

namespace moelora {

inline constexpr const char* kConvertTool = "lora-convert";

// A subcommand of lora-convert: where its options are parsed, and what it then does.
struct Command {
  CLI::App* app;
  std::function<int()> run;
};

Command add_inspect(CLI::App& app);
Command add_adapter(CLI::App& app);
Command add_init(CLI::App& app);
Command add_base(CLI::App& app);
Command add_spec(CLI::App& app);

// How an output folder is written: --max-shard-size, --force, --no-sync.
struct WriteFlags {
  std::string max_shard_size;
  bool force = false, no_sync = false;

  uint64_t shard_size() const;  // 0: one file
};

void add_write_options(CLI::App& app, WriteFlags& flags, const char* shard_help);

// "f32", "f16", "bf16"; nullopt for "keep".
std::optional<DType> dtype_of(const std::string& word);

}  // namespace moelora
