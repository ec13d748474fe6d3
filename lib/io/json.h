#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "lib/io/file.h"
#include "lib/io/json_value.h"

namespace moelora {

struct JsonLimits {
  uint64_t bytes = 1 << 20;
  int depth = 32;
};

// Strict JSON, read by nlohmann/json, of which nothing shows here: duplicate keys (after
// unescaping), NaN and Infinity literals, a byte order mark, invalid UTF-8, trailing text, too deep
// or too large input are each an Error of their own at "WHERE:LINE:COLUMN". Integers outside int64
// are read as real.
Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits = {});
Json read_json_file(const InputPath& path, const JsonLimits& limits = {});

}  // namespace moelora
