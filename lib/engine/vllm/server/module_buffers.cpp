#include "lib/engine/vllm/server/module_buffers.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "lib/base/dotted_path.h"

namespace moelora::vllm {
namespace {

class Buffers {
 public:
  Buffers(const Server& server, const Module& module)
      : server_(server),
        settings_(server.settings),
        module_(module),
        rank_(server.settings.max_rank) {}

  std::vector<Buffer> run() {
    if (module_.is_experts())
      experts();
    else if (module_.kind != Kind::unknown)
      dense();
    return std::move(buffers_);
  }

 private:
  void add(std::string_view attribute, int64_t index, Shape shape) {
    buffers_.push_back(
        {fmt::format("{}.{}_stacked.{}", module_.name, attribute, index), std::move(shape)});
  }

  void dense() {
    const Child& first = module_.children[0];
    const int64_t cut = settings_.fully_sharded ? settings_.tp : 1;  // what the ranks share more
    const bool row = module_.kind == Kind::row;
    const int64_t in = row ? first.in / settings_.tp : first.in;
    const int64_t a_rows = first.parts > 1 ? rank_ / cut : rank_;
    const std::vector<Slice> slices = slices_of(module_);
    for (size_t i = 0; i < slices.size(); ++i) {
      const auto index = static_cast<int64_t>(i);
      add("lora_a", index, module_.kind == Kind::embedding ? Shape{in, rank_} : Shape{a_rows, in});
      add("lora_b", index, {slices[i].rows / (row ? cut : slices[i].parts), rank_});
    }
  }

  void experts() {
    const bool stacked = module_.kind == Kind::stacked_experts;
    const int64_t local = server_.local_experts(), in = server_.spec.expert_in;
    const int64_t own = server_.intermediate();
    const int64_t shared = settings_.shared_outer && !stacked ? 1 : local;
    const int64_t part = settings_.fully_sharded ? settings_.moe_tp() : 1;
    for (int64_t slice = 0; slice < (stacked || !server_.spec.gated ? 1 : 2); ++slice) {
      add("w13_lora_a", slice, {shared, rank_ / part, in});
      add("w13_lora_b", slice, {local, stacked ? 2 * own : own, rank_});
    }
    add("w2_lora_a", 0, {local, rank_, own});
    add("w2_lora_b", 0, {shared, in / part, rank_});
  }

  const Server& server_;
  const Settings& settings_;
  const Module& module_;
  int64_t rank_;
  std::vector<Buffer> buffers_;
};

constexpr uint64_t kBytes = 2;  // vLLM's LoRA is float16 or bfloat16

// Buffers of one name below the layer and one shape are a row.
class Table {
 public:
  std::vector<MemoryRow> rows;

  void add(const Module& module, const Buffer& buffer) {
    uint64_t bytes = kBytes;
    for (int64_t extent : buffer.shape)
      bytes *= static_cast<uint64_t>(std::max<int64_t>(extent, 0));
    const std::string name =
        std::string(below_layer(module.name)) + buffer.name.substr(module.name.size());
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

std::vector<Buffer> module_buffers(const Server& server, const Module& module) {
  return Buffers(server, module).run();
}

std::vector<Slice> slices_of(const Module& module) {
  std::vector<Slice> out;
  if (module.slices.empty()) {
    for (size_t i = 0; i < module.children.size(); ++i)
      out.push_back({i, 0, module.children[i].out, module.children[i].parts});
    return out;
  }
  Slice at{0, 0, 0, module.children[0].parts};
  for (int64_t rows : module.slices) {
    if (at.first >= module.children[at.child].out && at.child + 1 < module.children.size()) {
      ++at.child;
      at.first = 0;
    }
    at.rows = rows;
    out.push_back(at);
    at.first += rows;
  }
  return out;
}

MemoryPlan memory_plan(const Server& server, const Json& base_config,
                       const ServerOptions& options) {
  Table table;
  for (const Module& module : server.modules)
    for (const Buffer& buffer : module_buffers(server, module)) table.add(module, buffer);
  return {std::move(table.rows), server.settings.slots, dtype_of(base_config, options)};
}

}  // namespace moelora::vllm
