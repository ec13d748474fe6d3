#include "lib/base/nearest.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "lib/base/utf8.h"

namespace moelora {

namespace {

// How many single-character insertions, deletions and replacements make `b` of `a`; `limit` when it
// is at least that many.
size_t edit_distance(std::string_view a, std::string_view b, size_t limit) {
  const size_t apart = a.size() > b.size() ? a.size() - b.size() : b.size() - a.size();
  if (apart >= limit) return limit;
  std::vector<size_t> row(b.size() + 1);  // distances of the prefix of `a` to every prefix of `b`
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
    if (*std::min_element(row.begin(), row.end()) >= limit) return limit;
  }
  return std::min(row.back(), limit);
}

}  // namespace

std::optional<std::string_view> nearest(std::string_view text,
                                        std::span<const std::string_view> known) {
  std::optional<std::string_view> best;
  size_t limit = text.size() / 3 + 1;
  for (std::string_view candidate : known) {
    const size_t distance = edit_distance(text, candidate, limit);
    if (distance >= limit) continue;
    best = candidate;
    limit = distance;
  }
  return best;
}

Error unknown_word(Location location, std::string_view kind, std::string_view word,
                   std::span<const std::string_view> known, Hint otherwise) {
  constexpr size_t kFew = 16;
  std::string text = fmt::format("unknown {} '{}'", kind, printable(word));
  const auto meant = nearest(word, known);
  if (meant) text += fmt::format(" (did you mean '{}'?)", *meant);
  if (known.size() <= kFew) otherwise = fmt::format("{}s: {}", kind, fmt::join(known, ", "));
  return {std::move(location), std::move(text), std::move(otherwise)};
}

}  // namespace moelora
