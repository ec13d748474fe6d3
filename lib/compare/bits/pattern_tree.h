#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace moelora::packed {

// The key as a tree, before it becomes states.
struct PatternNode {
  enum class Kind : uint8_t { bytes, sequence, choice, repeat, start, end };
  Kind kind;
  std::vector<bool> bytes = {};    // of `bytes`: which of the 256 it takes
  std::vector<size_t> parts = {};  // of sequence and choice; one of repeat
  int64_t least = 0, most = 0;     // of repeat; most < 0: any number
};

// The syntax of PatternKey; the root is the last node. Throws Error at `where`.
std::vector<PatternNode> parse_pattern(std::string_view key, const std::string& where);

}  // namespace moelora::packed
