#include "lib/engine/sglang/load/weights.h"

namespace moelora::sglang {

std::vector<int32_t> Staged::sources() const {
  std::vector<int32_t> out;
  for (const Block& block : blocks)
    if (block.source != kZeros) out.push_back(block.source);
  return out;
}

Staged* LayerWeights::find(std::string_view name) {
  const auto at = by_name_.find(name);
  return at == by_name_.end() ? nullptr : &at->second->value;
}

std::vector<Block> LayerWeights::set(Staged value) {
  if (Staged* known = find(value.name)) {
    std::vector<Block> before = std::move(known->blocks);
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
