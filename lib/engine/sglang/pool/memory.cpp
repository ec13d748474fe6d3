#include "lib/engine/sglang/pool/memory.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/base/checked.h"

namespace moelora::sglang {
namespace {

constexpr uint64_t kBytes = 2;  // of a bf16 or f16

// Saturates: a config may ask for more than there are bytes.
uint64_t times(uint64_t a, uint64_t b) { return checked_mul(a, b).value_or(UINT64_MAX >> 16); }

uint64_t elements(const Shape& shape) {
  uint64_t out = 1;
  for (int64_t extent : shape) out = times(out, static_cast<uint64_t>(extent));
  return out;
}

void add(MemoryPlan& plan, const std::string& name, const Shape& shape, int64_t layers) {
  const uint64_t bytes = times(times(kBytes, elements(shape)), static_cast<uint64_t>(layers));
  plan.rows.push_back({name, shape, layers, bytes});
}

// One row for each shape that a buffer has in some layers.
void add_layers(MemoryPlan& plan, const std::string& name, const std::vector<Shape>& shapes) {
  std::vector<Shape> done;
  for (const Shape& shape : shapes) {
    if (std::find(done.begin(), done.end(), shape) != done.end()) continue;
    done.push_back(shape);
    add(plan, name, shape, std::count(shapes.begin(), shapes.end(), shape));
  }
}

// The type the server runs the model in.
std::string dtype_of(const Json& base_config) {
  for (const char* key : {"dtype", "torch_dtype"})
    if (const Json* dtype = base_config.find(key))
      if (dtype->is(Json::Kind::string) && dtype->as_string() != "bfloat16") return "f16";
  return "bf16";
}

}  // namespace

MemoryPlan plan_memory(const Pool& pool, int64_t slots, const Json& base_config) {
  MemoryPlan out;
  out.slots = slots;
  out.dtype = dtype_of(base_config);
  for (const Buffer& buffer : pool.buffers) {
    add_layers(out, buffer.name + ".A", buffer.a);
    add_layers(out, buffer.name + ".B", buffer.b);
  }
  for (const EmbeddingBuffer& buffer : pool.embeddings) {
    add(out, fmt::format("{}.{}.A", buffer.group, buffer.name), buffer.a, 1);
    add(out, fmt::format("{}.{}.B", buffer.group, buffer.name), buffer.b, 1);
  }
  return out;
}

}  // namespace moelora::sglang
