#include "lib/compare/bits/fault.h"

#include <fmt/core.h>

#include <cmath>

#include "lib/base/utf8.h"

namespace moelora::packed {
namespace {

// "0-3, 7, 9-11".
template <class T>
std::string ranges(const std::vector<T>& sorted) {
  std::string out;
  for (size_t i = 0; i < sorted.size();) {
    size_t end = i + 1;
    while (end < sorted.size() && sorted[end] == sorted[end - 1] + 1) ++end;
    if (!out.empty()) out += ", ";
    out += end - i > 2 ? fmt::format("{}-{}", sorted[i], sorted[end - 1])
                       : fmt::format("{}", sorted[i]);
    i = end - i > 2 ? end : i + 1;
  }
  return out;
}

template <class T, class F>
std::string joined(const std::vector<T>& list, F&& text) {
  std::string out;
  for (const T& one : list) out += (out.empty() ? "" : ", ") + std::string(text(one));
  return out;
}

}  // namespace

std::string Fault::text() const {
  std::string out(row_of(mistake).text);
  if (!layers.empty())
    out += fmt::format("; layers {}, experts {}, {}", ranges(layers), ranges(experts),
                       joined(projections, projection_name));
  if (!modules.empty()) out += "; " + list_some(modules, 3);
  if (!sides.empty())
    out += ": " + joined(sides, [](Side s) { return fmt::format("lora_{}", letter(s)); });
  out += fmt::format(" ({} pair{}; first {}", pairs, pairs == 1 ? "" : "s", first);
  if (!detail.empty()) out += ": " + detail;
  if (std::isinf(delta_error))
    out += "; the delta is off beyond measure";
  else if (delta_error > 0)
    out += fmt::format("; the delta is off by {:.2g} of its norm", delta_error);
  return out + ")";
}

}  // namespace moelora::packed
