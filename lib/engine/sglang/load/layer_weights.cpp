#include "lib/engine/sglang/load/layer_weights.h"

#include <fmt/core.h>

#include <algorithm>

namespace moelora::sglang {
namespace {

// A 1-D tensor without elements is skipped by torch.cat, whatever the others are.
bool is_skipped(const Staged& part) { return part.shape == Shape{0}; }

std::string mismatch(const Staged& first, const Staged& part, size_t index, size_t dim) {
  if (part.shape.size() != first.shape.size())
    return fmt::format("Tensors must have same number of dimensions: got {} and {}",
                       first.shape.size(), part.shape.size());
  for (size_t d = 0; d < first.shape.size(); ++d)
    if (d != dim && part.shape[d] != first.shape[d])
      return fmt::format(
          "Sizes of tensors must match except in dimension {}. Expected size {} but "
          "got size {} for tensor number {} in the list.",
          dim, first.shape[d], part.shape[d], index);
  return "";
}

}  // namespace

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

Stacked stack_rows(std::span<const Staged* const> parts, int dim) {
  const auto found = std::find_if_not(parts.begin(), parts.end(),
                                      [](const Staged* part) { return is_skipped(*part); });
  if (found == parts.end()) return {{0}, {}, ""};
  const Staged& first = **found;
  if (first.rank() == 0)
    return {{}, {}, "zero-dimensional tensor (at position 0) cannot be concatenated"};
  const int wrapped = dim < 0 ? dim + first.rank() : dim;
  const auto at = static_cast<size_t>(wrapped < 0 || wrapped >= first.rank() ? 0 : wrapped);
  Stacked out{first.shape, {}, ""};
  out.shape[at] = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (is_skipped(*parts[i])) continue;
    out.error = mismatch(first, *parts[i], i, at);
    if (!out.error.empty()) return out;
    out.shape[at] += parts[i]->shape[at];
    out.blocks.insert(out.blocks.end(), parts[i]->blocks.begin(), parts[i]->blocks.end());
  }
  return out;
}

Staged zeros_like(const Staged& other) {
  int64_t rows = 0;
  for (const Block& block : other.blocks) rows += block.rows;
  return {"", other.shape, {{kZeros, rows}}};
}

void repeat_rows(Staged& staged, int times) {
  const std::vector<Block> once = staged.blocks;
  for (int i = 1; i < times; ++i)
    staged.blocks.insert(staged.blocks.end(), once.begin(), once.end());
  if (staged.rank() == 1) staged.shape.insert(staged.shape.begin(), 1);
  if (staged.rank() >= 2) staged.shape[staged.shape.size() - 2] *= times;
}

}  // namespace moelora::sglang
