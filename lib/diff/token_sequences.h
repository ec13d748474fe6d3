#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace moelora {

// Token ids to be scored, from the first of their text on, and what a file says of them.
struct TokenSequence {
  std::vector<int64_t> tokens;
  std::vector<bool> counted = {};     // the file's mask, one a token; empty: all count
  std::optional<size_t> prompt = {};  // how many tokens are the prompt
};

struct TokenFile {
  std::string path;
  std::string format;  // "ids", or the id of a LogprobFormat
  std::vector<TokenSequence> sequences;
  std::optional<double> temperature = {};  // that the file's scores were computed at
  std::vector<std::string> notes = {};     // for people
};

}  // namespace moelora
