#include "lib/engine/sglang/load/layer_weights.h"

#include <algorithm>

namespace moelora::sglang {

int64_t row_count(const Shape& shape) {
  if (shape.size() >= 2) return shape[shape.size() - 2];
  return shape.empty() ? 1 : shape[0];
}

bool is_empty(const Shape& shape) {
  return std::find(shape.begin(), shape.end(), 0) != shape.end();
}

std::vector<int32_t> Staged::sources() const {
  std::vector<int32_t> out;
  for (const Block& block : blocks)
    if (block.source != kZeros) out.push_back(block.source);
  return out;
}

std::vector<int32_t> sources_of(std::span<const Staged* const> entries) {
  std::vector<int32_t> out;
  for (const Staged* entry : entries) {
    const auto sources = entry->sources();
    out.insert(out.end(), sources.begin(), sources.end());
  }
  return out;
}

Staged* LayerWeights::find(std::string_view name) {
  const auto at = by_name_.find(name);
  return at == by_name_.end() ? nullptr : &at->second->value;
}

std::vector<int32_t> LayerWeights::set(Staged value) {
  if (Staged* known = find(value.name)) {
    std::vector<int32_t> before = known->sources();
    known->blocks = std::move(value.blocks);
    known->shape = std::move(value.shape);
    return before;
  }
  Entry& entry = entries_.emplace_back();
  entry.value = std::move(value);
  by_name_.emplace(entry.value.name, &entry);
  return {};
}

Staged LayerWeights::take(Staged& entry) {
  const auto at = by_name_.find(entry.name);
  Entry* owner = at->second;
  by_name_.erase(at);
  owner->live = false;
  return std::move(owner->value);
}

}  // namespace moelora::sglang
