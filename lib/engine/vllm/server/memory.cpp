#include "lib/engine/vllm/server/memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "lib/engine/vllm/server/module_buffers.h"

namespace moelora::vllm {
namespace {

constexpr uint64_t kBytes = 2;  // vLLM's LoRA is float16 or bfloat16

// "attn.qkv_proj" of "model.layers.3.attn.qkv_proj".
std::string below_layer(const Module& module) {
  const std::string mark = fmt::format("layers.{}.", module.layer);
  const size_t at = module.name.find(mark);
  return at == std::string::npos ? module.name : module.name.substr(at + mark.size());
}

// Buffers of one name below the layer and one shape are a row.
class Table {
 public:
  std::vector<MemoryRow> rows;

  void add(const Module& module, const Buffer& buffer) {
    uint64_t bytes = kBytes;
    for (int64_t extent : buffer.shape)
      bytes *= static_cast<uint64_t>(std::max<int64_t>(extent, 0));
    const std::string name = below_layer(module) + buffer.name.substr(module.name.size());
    auto row = std::find_if(rows.begin(), rows.end(), [&](const MemoryRow& r) {
      return r.buffer == name && r.shape == buffer.shape;
    });
    if (row == rows.end()) row = rows.insert(row, {name, buffer.shape, 0, 0});
    ++row->layers;
    row->bytes += bytes;
  }
};

// lora_dtype "auto" is the base's dtype.
std::string dtype_of(const Json& config, const ServerOptions& options) {
  std::string dtype = options.text("lora-dtype");
  const Json* text = config.find("text_config");
  for (const Json* at : {text, &config})
    for (std::string_view key : {"dtype", "torch_dtype"})
      if (const Json* value = at != nullptr ? at->find(key) : nullptr;
          value != nullptr && value->is(Json::Kind::string) && (dtype.empty() || dtype == "auto"))
        dtype = value->as_string();
  return dtype == "float16" ? "f16" : "bf16";
}

}  // namespace

MemoryPlan memory_plan(const Server& server, const Json& base_config,
                       const ServerOptions& options) {
  Table table;
  for (const Module& module : server.modules)
    for (const Buffer& buffer : module_buffers(server, module)) table.add(module, buffer);
  return {std::move(table.rows), server.settings.slots, dtype_of(base_config, options)};
}

}  // namespace moelora::vllm
