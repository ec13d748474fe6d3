#include "lib/adapter/path_regex.h"

#include <algorithm>

namespace moelora {

// Follows everything that reads no byte.
void PathRegex::add(std::vector<uint32_t>& list, std::vector<bool>& seen, uint32_t state,
                    bool at_start, bool at_end) const {
  std::vector<uint32_t> open{state};
  while (!open.empty()) {
    const uint32_t s = open.back();
    open.pop_back();
    if (seen[s]) continue;
    seen[s] = true;
    const State& here = states_[s];
    switch (here.kind) {
      case Kind::split:
        open.push_back(here.other);
        [[fallthrough]];
      case Kind::jump:
        open.push_back(here.next);
        break;
      case Kind::first:
        if (at_start) open.push_back(here.next);
        break;
      case Kind::last:
        if (at_end) open.push_back(here.next);
        break;
      default:
        list.push_back(s);
    }
  }
}

bool PathRegex::matches(std::string_view path) const {
  std::vector<uint32_t> now, then;
  std::vector<bool> seen(states_.size());
  add(now, seen, 0, true, path.empty());
  for (size_t i = 0; i < path.size(); ++i) {
    std::fill(seen.begin(), seen.end(), false);
    then.clear();
    for (const uint32_t s : now)
      if (states_[s].kind == Kind::byte &&
          sets_[states_[s].bytes].test(static_cast<unsigned char>(path[i])))
        add(then, seen, states_[s].next, false, i + 1 == path.size());
    now.swap(then);
  }
  for (const uint32_t s : now)
    if (states_[s].kind == Kind::match) return true;
  return false;
}

}  // namespace moelora
