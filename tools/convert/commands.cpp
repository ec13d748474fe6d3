#include "tools/convert/commands.h"

#include <CLI/CLI.hpp>

#include "tools/sizes.h"

namespace moelora {

uint64_t WriteFlags::shard_size() const {
  return max_shard_size.empty() ? 0 : parse_size("--max-shard-size", max_shard_size);
}

void add_write_options(CLI::App& app, WriteFlags& flags, const char* shard_help) {
  app.add_option("--max-shard-size", flags.max_shard_size, shard_help)->type_name("SIZE");
  app.add_flag("--force", flags.force, "Replace an existing output folder");
  app.add_flag("--no-sync", flags.no_sync, "Do not wait for the disk (no fsync)");
}

std::optional<DType> dtype_of(const std::string& word) {
  if (word == "f32") return DType::F32;
  if (word == "f16") return DType::F16;
  if (word == "bf16") return DType::BF16;
  return std::nullopt;
}

}  // namespace moelora
