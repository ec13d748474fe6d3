#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lib/adapter/delta_pair.h"

namespace moelora {

// A mistake, undone: makes of B's deltas what they would be without it. Returns false where B
// cannot have it (a square that is none, an expert count that differs).
struct Mistake {
  std::string id, text;
  std::function<bool(Deltas& deltas)> undo;
};

// All that need no look at the values; `experts` is E.
std::vector<Mistake> known_mistakes(int64_t experts);

}  // namespace moelora
