#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lib/diff/scores.h"

namespace moelora {

// One position that both sides scored.
struct ScorePair {
  size_t sequence, position;
  int64_t token;  // -1 where neither file has ids
  double a, b;
  bool prompt;  // part of the prompt, where a file says so; else false

  double d() const { return b - a; }
};

// The mean of what `value` gives for each pair. REQUIRES: at least one pair.
template <class F>
double mean(std::span<const ScorePair> pairs, F&& value) {
  double sum = 0;
  for (const ScorePair& pair : pairs) sum += value(pair);
  return sum / static_cast<double>(pairs.size());
}

// The comparable positions of two score sets, and what was found on the way. Positions are matched
// by index: both sides scored the same tokens.
struct Alignment {
  std::vector<ScorePair> pairs;
  bool knows_prompt = false;
  int64_t unscored = 0;    // positions that a side has no value for
  int64_t masked = 0;      // positions that a file's mask leaves out
  int64_t not_finite = 0;  // NaN or infinite on a side; never compared, never forgotten
  std::vector<std::string> notes;
};

// Throws Error where the two cannot be compared: another number of sequences, other token ids (the
// first difference is named), lengths that no first token explains, nothing scored by both.
Alignment align(const Scores& a, const Scores& b);

// What looks wrong with a comparison although it could be made: values that fit better shifted by
// one position, or by a temperature. Empty when nothing does.
std::vector<std::string> suspicions(const Scores& a, const Scores& b, const Alignment& alignment);

}  // namespace moelora
