#include "lib/engine/sglang/load/journal.h"

#include <algorithm>

namespace moelora::sglang {

Journal::Entry& Journal::entry(const Cause* cause, Effect effect) {
  for (Entry& known : entries_)
    if (known.cause == cause && known.effect == effect) return known;
  Entry& made = entries_.emplace_back();
  made.cause = cause;
  made.effect = effect;
  return made;
}

const Refusal* Journal::first_refusal() const {
  for (const Entry& entry : entries_)
    if (entry.refusal) return &*entry.refusal;
  return nullptr;
}

bool Journal::refused() const { return first_refusal() != nullptr; }

std::vector<PlanEvent> Journal::events(const std::vector<Source>& sources) const {
  std::vector<PlanEvent> out;
  for (const Entry& entry : entries_) {
    PlanEvent& event = out.emplace_back(PlanEvent{entry.cause, entry.effect, {}, {}, {}});
    event.detail = entry.detail;
    event.refusal = entry.refusal;
    for (int32_t source : entry.sources)
      event.tensors.push_back(sources[static_cast<size_t>(source)].name);
    std::sort(event.tensors.begin(), event.tensors.end());
    event.tensors.erase(std::unique(event.tensors.begin(), event.tensors.end()),
                        event.tensors.end());
  }
  return out;
}

}  // namespace moelora::sglang
