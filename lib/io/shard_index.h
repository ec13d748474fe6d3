#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moelora {

inline constexpr std::string_view kIndexEnding = ".safetensors.index.json";

// What a STEM.safetensors.index.json says.
struct ShardIndex {
  std::map<std::string, std::string> weight_map;  // tensor -> file name, never empty
  std::optional<uint64_t> total_size;             // metadata.total_size: bytes of all tensors
  std::vector<std::string> warnings;              // total_size of another type, unknown keys

  std::vector<std::string> files() const;  // each once, sorted: the shard order
};

// Parses an index and checks what can be checked without its folder: strict JSON, weight_map a
// map of strings to file names, no tensor twice, and every file name a bare *.safetensors name:
// no separator, drive or control character, whatever the system. Throws Error at WHERE:LINE:COLUMN.
ShardIndex parse_shard_index(std::string_view text, const std::string& where);

// What the numbers in names like model-00001-of-00003.safetensors say is missing ("model-00002-of-
// 00003.safetensors"), at most a few; empty when complete or not numbered.
std::vector<std::string> missing_numbers(const std::vector<std::string>& files);

// "STEM-00002-of-00003.safetensors", as huggingface names shard `number` of `count`.
std::string shard_name(const std::string& stem, size_t number, size_t count);

// The text of an index of these tensors (name to file) of `total_size` bytes together.
std::string shard_index_text(const std::map<std::string, std::string>& weight_map,
                             uint64_t total_size);

}  // namespace moelora
