// Input: the bytes of a file of token ids: JSON, JSON lines, CSV or .npy.

#include "lib/diff/token_file.h"
#include "tests/fuzz/memory_file.h"

// Whatever the file says: ids are none below 0, and what is said of each has one entry a token.
void fuzz(std::string_view input) {
  using namespace moelora;
  const MemoryFile file(input);
  const TokenFile read = read_tokens(file.path());
  for (const TokenSequence& s : read.sequences) {
    for (const int64_t token : s.tokens) require(token >= 0);
    require(s.counted.empty() || s.counted.size() == s.tokens.size());
    require(!s.prompt || *s.prompt <= s.tokens.size());
  }
}
