#include "lib/engine/plan.h"

namespace moelora {

std::string refusal_text(const Refusal& refusal) {
  return refusal.text.empty() ? refusal.type : refusal.type + ": " + refusal.text;
}

std::string_view fate_name(Fate fate) {
  switch (fate) {
    case Fate::used:
      return "used";
    case Fate::cut:
      return "cut";
    case Fate::partial:
      return "partial";
    case Fate::misplaced:
      return "misplaced";
    case Fate::unused:
      return "unused";
    case Fate::refused:
      return "refused";
  }
  return "";
}

std::string_view effect_name(Effect effect) {
  switch (effect) {
    case Effect::refused:
      return "refused";
    case Effect::unused:
      return "unused";
    case Effect::cut:
      return "cut";
    case Effect::partial:
      return "partial";
    case Effect::misplaced:
      return "misplaced";
    case Effect::wrong_scale:
      return "wrong-scale";
    case Effect::wrong_values:
      return "wrong-values";
  }
  return "";
}

const PlanEvent* AdapterPlan::first_refusal() const {
  for (const PlanEvent& event : events)
    if (event.refusal) return &event;
  return nullptr;
}

uint64_t MemoryPlan::slot_bytes() const {
  uint64_t sum = 0;
  for (const MemoryRow& row : rows) sum += row.bytes;
  return sum;
}

}  // namespace moelora
