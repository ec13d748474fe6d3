#pragma once

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "lib/base/error.h"

// A fuzz target is a source with one `void fuzz(std::string_view input)`. It may throw Error and
// nothing else; what must hold of sound input it says with require().
void fuzz(std::string_view input);

inline void require(bool holds) {
  if (!holds) std::abort();
}

inline void fuzz_one(std::string_view input) {
  try {
    fuzz(input);
  } catch (const moelora::Error&) {
  }
}
