#include "lib/diff/file_scores.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>

#include "lib/base/nearest.h"

namespace moelora {
namespace {

constexpr std::array<std::string_view, 3> kPrecisions = {"double", "float", "bf16"};  // in order

template <class F>
void each_counted(const Scores& scores, F&& take) {
  for (const Sequence& sequence : scores.sequences)
    for (size_t i = 0; i < sequence.size(); ++i)
      if (sequence.scored[i] && (sequence.counted.empty() || sequence.counted[i]))
        take(sequence.logprobs[i]);
}

}  // namespace

size_t FileScores::tokens() const {
  size_t out = 0;
  for (const Sequence& sequence : scores.sequences) out += sequence.size();
  return out;
}

size_t FileScores::scored() const {
  size_t out = 0;
  each_counted(scores, [&](double) { ++out; });
  return out;
}

double FileScores::mean() const {
  double sum = 0;
  each_counted(scores, [&](double value) { sum += value; });
  return sum / static_cast<double>(scored());
}

size_t FileScores::not_finite() const {
  size_t out = 0;
  each_counted(scores, [&](double value) { out += std::isfinite(value) ? 0 : 1; });
  return out;
}

std::string_view precision_name(Precision precision) {
  return kPrecisions[static_cast<size_t>(precision)];
}

std::vector<std::string> precision_names() {
  return {std::begin(kPrecisions), std::end(kPrecisions)};
}

Precision precision_by_name(std::string_view name) {
  const auto* found = std::find(std::begin(kPrecisions), std::end(kPrecisions), name);
  if (found == std::end(kPrecisions)) throw unknown_word({}, "precision", name, kPrecisions);
  return static_cast<Precision>(found - std::begin(kPrecisions));
}

}  // namespace moelora
