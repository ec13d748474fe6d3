#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace moelora::sglang {

// Which adapter is in which slot of the pool: the base model is in one of them, new adapters take
// the first empty one, else that of the adapter that was used longest ago;
// the base model gives way only where it has the only slot.
class SlotTable {
 public:
  explicit SlotTable(int64_t slots) : slots_(static_cast<size_t>(slots)) {
    if (!slots_.empty()) slots_[0].adapter = kBase;
  }

  // The slot of `adapter`, which is put into one when it is in none; -1 where there are no slots.
  int64_t use(int64_t adapter);
  // -1 for an adapter in no slot.
  int64_t slot_of(int64_t adapter) const;

 private:
  // The slot to give to the next adapter of a full pool.
  int64_t oldest() const;

  static constexpr int64_t kBase = -1;
  struct Slot {
    std::optional<int64_t> adapter;
    int64_t last_use = 0;
  };
  std::vector<Slot> slots_;
  int64_t clock_ = 0;
};

}  // namespace moelora::sglang
