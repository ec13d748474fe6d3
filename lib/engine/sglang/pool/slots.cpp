#include "lib/engine/sglang/pool/slots.h"

namespace moelora::sglang {

int64_t SlotTable::slot_of(int64_t adapter) const {
  for (size_t i = 0; i < slots_.size(); ++i)
    if (slots_[i].adapter == adapter) return static_cast<int64_t>(i);
  return -1;
}

int64_t SlotTable::oldest() const {
  int64_t found = -1;
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].adapter == kBase) continue;
    if (found < 0 || slots_[i].last_use < slots_[static_cast<size_t>(found)].last_use)
      found = static_cast<int64_t>(i);
  }
  return found < 0 && !slots_.empty() ? 0 : found;
}

int64_t SlotTable::use(int64_t adapter) {
  int64_t slot = slot_of(adapter);
  for (size_t i = 0; slot < 0 && i < slots_.size(); ++i)
    if (!slots_[i].adapter) slot = static_cast<int64_t>(i);
  if (slot < 0) slot = oldest();
  if (slot < 0) return -1;
  Slot& taken = slots_[static_cast<size_t>(slot)];
  taken.adapter = adapter;
  taken.last_use = ++clock_;
  return slot;
}

}  // namespace moelora::sglang
