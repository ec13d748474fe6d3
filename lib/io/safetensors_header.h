#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "lib/io/header_grammar.h"

namespace moelora {

// A safetensors file, byte for byte; all numbers are little-endian:
//
//   u64      N, the length of the header
//   N bytes  the header: one JSON object in UTF-8; writers pad it with spaces to a multiple of 8
//   rest     the data section: the elements of the tensors, row-major, one tensor after another
//
// The object has one member per tensor, and may have one of strings about the whole file:
//
//   {"__metadata__": {"format": "pt"},
//    "model.x.lora_A.weight": {"dtype": "BF16", "shape": [16, 2048], "data_offsets": [0, 65536]}}
//
// Offsets [begin, end) count from the begin of the data section. In file order the first tensor
// begins at 0, each begins where the one before it ends, the last ends where the file does: no byte
// belongs to two tensors or to none. A tensor takes exactly what its shape and dtype say; those of
// F4 and F6 fill whole bytes together.

inline constexpr std::string_view kSafetensorsEnding = ".safetensors";

inline constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the reference's limit
inline constexpr uint64_t kHubHeaderBytes = 25'000'000;   // what hub tools still read

// Parses and checks a header: all rules of the reference reader 0.8.0 and the stricter ones of
// this project (duplicate keys, unknown fields, entry as array, dtype as object, null metadata,
// rank above 16, more than kMaxHeaderTensors). `header` is the JSON text, `file_size` the size of
// the whole file. Throws Error at `where` (or "WHERE: TENSOR"), one text per kind of fault, with
// offsets, found and expected.
SafetensorsHeader parse_safetensors_header(std::string header, uint64_t file_size,
                                           const std::string& where);

}  // namespace moelora
