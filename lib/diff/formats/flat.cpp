// A JSON list of log-probabilities, or of such lists: no tokens.

#include "lib/diff/logprob_format.h"

namespace moelora {
namespace {

bool claims(const ScoreInput& input) { return !input.numbers.empty(); }

ScoreFile read(const ScoreInput& input) {
  ScoreFile out;
  out.first.sequences = input.numbers;
  return out;
}

}  // namespace

const LogprobFormat flat_format = {"flat", "a JSON list of numbers, or of lists of numbers", claims,
                                   read};

}  // namespace moelora
