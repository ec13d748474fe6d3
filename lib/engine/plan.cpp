#include "lib/engine/plan.h"

#include <algorithm>
#include <array>

#include "lib/base/checked.h"

namespace moelora {

std::string refusal_text(const Refusal& refusal) {
  return refusal.text.empty() ? refusal.type : refusal.type + ": " + refusal.text;
}

std::string_view fate_name(Fate fate) {
  constexpr std::array<std::string_view, 6> kNames = {"used",      "cut",    "partial",
                                                      "misplaced", "unused", "refused"};
  static_assert(kNames.size() == static_cast<size_t>(Fate::refused) + 1);
  return kNames[static_cast<size_t>(fate)];
}

std::string_view effect_name(Effect effect) {
  constexpr std::array<std::string_view, 7> kNames = {
      "refused", "unused", "cut", "partial", "misplaced", "wrong-scale", "wrong-values"};
  static_assert(kNames.size() == static_cast<size_t>(Effect::wrong_values) + 1);
  return kNames[static_cast<size_t>(effect)];
}

const PlanEvent* AdapterPlan::first_refusal() const {
  for (const PlanEvent& event : events)
    if (event.refusal) return &event;
  return nullptr;
}

void MemoryPlan::add(std::string buffer, const Shape& shape) {
  constexpr uint64_t kMost = UINT64_MAX >> 16;  // a config may ask for more than there are bytes
  uint64_t bytes = 2;                           // of a bf16 or f16
  for (int64_t extent : shape)
    bytes = checked_mul(bytes, static_cast<uint64_t>(std::max<int64_t>(extent, 0))).value_or(kMost);
  auto row = std::find_if(rows.begin(), rows.end(), [&](const MemoryRow& known) {
    return known.buffer == buffer && known.shape == shape;
  });
  if (row == rows.end()) row = rows.insert(row, {std::move(buffer), shape, 0, 0});
  ++row->layers;
  row->bytes = std::min(row->bytes + std::min(bytes, kMost), kMost);
}

uint64_t MemoryPlan::slot_bytes() const {
  uint64_t sum = 0;
  for (const MemoryRow& row : rows) sum += row.bytes;
  return sum;
}

}  // namespace moelora
