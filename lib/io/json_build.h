#pragma once

#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/io/json_value.h"

namespace moelora {

// An array of what `f` makes of each item of a range.
template <class Range, class F>
Json json_list(const Range& items, F&& f) {
  std::vector<Json> out;
  for (const auto& item : items) out.push_back(f(item));
  return Json::array(std::move(out));
}

// Where there is no value, or an empty text: null.
template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}
inline Json or_null(std::string_view text) { return text.empty() ? Json() : Json(text); }

// Of how many there are.
inline Json json_count(size_t value) { return Json(static_cast<int64_t>(value)); }

}  // namespace moelora
