#include "lib/engine/vllm/server/module_buffers.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "lib/base/dotted_path.h"

namespace moelora::vllm {
namespace {

void add(const Module& module, std::string_view attribute, size_t index, Shape shape,
         std::vector<Buffer>& out) {
  out.push_back({fmt::format("{}.{}_stacked.{}", module.name, attribute, index), std::move(shape)});
}

std::vector<Buffer> dense_buffers(const Server& server, const Module& module) {
  const Settings& settings = server.settings;
  const Child& first = module.children[0];
  const int64_t cut = settings.fully_sharded ? settings.tp : 1;  // what the ranks share more
  const bool row = module.kind == Kind::row;
  const int64_t rank = settings.max_rank, in = row ? first.in / settings.tp : first.in;
  const int64_t a_rows = first.parts > 1 ? rank / cut : rank;
  const std::vector<Slice> slices = slices_of(module);
  std::vector<Buffer> out;
  if (module.kind == Kind::joined) {
    int64_t rows = 0;
    for (const Slice& slice : slices) rows += slice.rows / slice.parts;
    add(module, "lora_a", 0, {a_rows, in}, out);
    add(module, "lora_b", 0, {rows, rank}, out);
    return out;
  }
  for (size_t i = 0; i < slices.size(); ++i) {
    add(module, "lora_a", i, module.kind == Kind::embedding ? Shape{in, rank} : Shape{a_rows, in},
        out);
    add(module, "lora_b", i, {slices[i].rows / (row ? cut : slices[i].parts), rank}, out);
  }
  return out;
}

std::vector<Buffer> expert_buffers(const Server& server, const Module& module) {
  const Settings& settings = server.settings;
  const bool stacked = module.kind == Kind::stacked_experts;
  const int64_t local = server.local_experts(), in = server.spec.expert_in;
  const int64_t rank = settings.max_rank, own = server.intermediate();
  const int64_t shared = settings.shared_outer && !stacked ? 1 : local;
  const int64_t part = settings.fully_sharded ? settings.moe_tp() : 1;
  std::vector<Buffer> out;
  for (size_t slice = 0; slice < (stacked || !server.spec.gated ? 1 : 2); ++slice) {
    add(module, "w13_lora_a", slice, {shared, rank / part, in}, out);
    add(module, "w13_lora_b", slice, {local, stacked ? 2 * own : own, rank}, out);
  }
  add(module, "w2_lora_a", 0, {local, rank, own}, out);
  add(module, "w2_lora_b", 0, {shared, in / part, rank}, out);
  return out;
}

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
  if (module.is_experts()) return expert_buffers(server, module);
  if (module.kind == Kind::unknown) return {};
  return dense_buffers(server, module);
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
    if (module.kv_parts > 0 && !out.empty()) at.parts = module.kv_parts;
    out.push_back(at);
    at.first += rows;
  }
  return out;
}

MemoryPlan memory_plan(const Server& server, const PlanRequest& request) {
  MemoryPlan out{{}, server.settings.slots, dtype_of(request.base_config, request.options)};
  for (const Module& module : server.modules)
    for (const Buffer& buffer : module_buffers(server, module))
      out.add(std::string(below_layer(module.name)) + buffer.name.substr(module.name.size()),
              buffer.shape);
  return out;
}

}  // namespace moelora::vllm
