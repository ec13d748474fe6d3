#pragma once

#include <string>

#include "lib/diff/scores.h"
#include "lib/io/json.h"

namespace moelora {

// SGLang's [logprob or null, token id, text or null].
struct Triple {
  std::optional<double> logprob;
  int64_t token;
  std::string text;
};
Triple read_triple(const Json& entry, const std::string& path);

// Drops texts and top lists that hold nothing.
void tidy(Sequence& sequence);

}  // namespace moelora
