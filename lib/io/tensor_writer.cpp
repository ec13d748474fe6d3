#include "lib/io/tensor_writer.h"

#include <fmt/format.h>

#include "lib/base/digest.h"
#include "lib/base/parallel.h"
#include "lib/io/json.h"
#include "lib/io/shard_split.h"

namespace moelora {
namespace {

void write_index(OutputFolder& out, const std::string& name, const WrittenWeights& written) {
  Json::Members map;
  for (const auto& [tensor, where] : written.tensors) map.emplace_back(tensor, where.file);
  const Json index = Json::object(
      {{"metadata", Json::object({{"total_size", static_cast<int64_t>(written.bytes)}})},
       {"weight_map", Json::object(std::move(map))}});
  out.write_text(name, index.dump() + "\n");
}

}  // namespace

WrittenWeights write_weights(OutputFolder& out, const std::string& stem, const TensorMap& tensors,
                             const WriteOptions& options) {
  WrittenWeights written;
  for (const Shard& shard : split_shards(stem, tensors, options.max_shard_size)) {
    const SafetensorsPlan plan = plan_safetensors(shard.tensors, options.metadata);
    const auto file = out.create(shard.file, plan.file_size);
    file->write(0, std::as_bytes(std::span(plan.header)));
    for (const auto& [name, tensor] : shard.tensors) {
      const std::vector<std::byte> bytes = tensor.read();
      file->write(plan.begin.at(name), bytes);
      written.tensors[name] = {shard.file, options.digests ? digest_hex(bytes) : ""};
      written.bytes += bytes.size();
    }
    written.files.push_back(shard.file);
  }
  if (written.files.size() > 1) {
    const std::string index = stem + ".safetensors.index.json";
    write_index(out, index, written);
    written.files.push_back(index);
  }
  return written;
}

}  // namespace moelora
