// Input: the bytes of a file of log-probabilities: JSON, JSON lines or CSV, in any format.

#include "lib/diff/scores.h"
#include "tests/fuzz/memory_file.h"

namespace {

using namespace moelora;

void require_sound(const Scores& scores) {
  require(!scores.sequences.empty());
  for (const Sequence& s : scores.sequences) {
    require(s.scored.size() == s.size());
    require(s.tokens.empty() || s.tokens.size() == s.size());
    require(s.texts.empty() || s.texts.size() == s.size());
    require(s.counted.empty() || s.counted.size() == s.size());
    require(s.top.empty() || s.top.size() == s.size());
    require(!s.prompt || *s.prompt <= s.size());
  }
}

}  // namespace

// What is read has one entry a position in every list, whatever the file says.
void fuzz(std::string_view input) {
  const MemoryFile file(input);
  const ScoreFile read = read_scores(file.path());
  require_sound(read.first);
  if (read.second) require_sound(*read.second);
}
