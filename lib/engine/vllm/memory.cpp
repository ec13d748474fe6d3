#include "lib/engine/vllm/memory.h"

#include <fmt/format.h>

#include <algorithm>

namespace moelora::vllm {
namespace {

constexpr uint64_t kBytes = 2;  // vLLM's LoRA is float16 or bfloat16

// "attn.qkv_proj" of "model.layers.3.attn.qkv_proj".
std::string below_layer(const Module& module) {
  const std::string mark = fmt::format("layers.{}.", module.layer);
  const size_t at = module.name.find(mark);
  return at == std::string::npos ? module.name : module.name.substr(at + mark.size());
}

class Table {
 public:
  explicit Table(const Server& server)
      : server_(server), settings_(server.settings), rank_(server.settings.max_rank) {}

  std::vector<MemoryRow> rows() {
    for (const Module& module : server_.modules) add(module);
    return std::move(rows_);
  }

 private:
  void add_row(const Module& module, std::string_view attribute, Shape shape) {
    uint64_t bytes = kBytes;
    for (int64_t extent : shape) bytes *= static_cast<uint64_t>(std::max<int64_t>(extent, 0));
    const std::string name = fmt::format("{}.{}", below_layer(module), attribute);
    auto row = std::find_if(rows_.begin(), rows_.end(), [&](const MemoryRow& r) {
      return r.buffer == name && r.shape == shape;
    });
    if (row == rows_.end()) row = rows_.insert(row, {name, std::move(shape), 0, 0});
    ++row->layers;
    row->bytes += bytes;
  }

  void add(const Module& module) {
    if (module.is_experts()) return add_experts(module);
    if (module.kind == Kind::unknown) return;
    if (module.kind == Kind::embedding) {
      add_row(module, "lora_a_stacked.0", {module.children[0].in, rank_});
      return add_row(module, "lora_b_stacked.0", {module.children[0].out, rank_});
    }
    if (!module.slices.empty()) {
      for (size_t i = 0; i < module.slices.size(); ++i)
        add_pair(module, module.children[0], module.slices[i], i);
      return;
    }
    for (size_t i = 0; i < module.children.size(); ++i)
      add_pair(module, module.children[i], module.children[i].out, i);
  }

  void add_pair(const Module& module, const Child& child, int64_t out, size_t index) {
    const bool row = module.kind == Kind::row, fully = settings_.fully_sharded;
    const int64_t in = row ? child.in / settings_.tp : child.in;
    const int64_t a_rows = fully && child.parts > 1 ? rank_ / settings_.tp : rank_;
    const int64_t b_rows = row && fully ? out / settings_.tp : out / child.parts;
    add_row(module, fmt::format("lora_a_stacked.{}", index), {a_rows, in});
    add_row(module, fmt::format("lora_b_stacked.{}", index), {b_rows, rank_});
  }

  void add_experts(const Module& module) {
    const ModelSpec& spec = server_.spec;
    const bool stacked = module.kind == Kind::stacked_experts,
               fully = settings_.fully_sharded && settings_.moe_tp() > 1;
    const int64_t local = server_.local_experts(), in = spec.expert_in,
                  own = server_.intermediate();
    const int64_t shared = settings_.shared_outer && !stacked ? 1 : local;
    const int64_t part = fully ? settings_.tp : 1;
    for (int slice = 0; slice < (stacked || !spec.gated ? 1 : 2); ++slice) {
      add_row(module, fmt::format("w13_lora_a_stacked.{}", slice), {shared, rank_ / part, in});
      add_row(module, fmt::format("w13_lora_b_stacked.{}", slice),
              {local, stacked ? 2 * own : own, rank_});
    }
    add_row(module, "w2_lora_a_stacked.0", {local, rank_, own});
    add_row(module, "w2_lora_b_stacked.0", {shared, in / part, rank_});
  }

  const Server& server_;
  const Settings& settings_;
  int64_t rank_;
  std::vector<MemoryRow> rows_;
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
  return {Table(server).rows(), server.settings.slots, dtype_of(base_config, options)};
}

}  // namespace moelora::vllm
