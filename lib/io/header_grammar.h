#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/dtype.h"

namespace moelora {

// One entry of a safetensors header. Offsets are relative to the data section.
struct TensorEntry {
  std::string_view name;  // lives as long as SafetensorsHeader::names
  DType dtype;
  std::vector<uint64_t> shape;
  uint64_t begin = 0, end = 0;
};

struct SafetensorsHeader {
  uint64_t data_begin = 0;                      // 8 + header length
  std::vector<TensorEntry> tensors;             // in file order (by begin, then end, then name)
  std::map<std::string, std::string> metadata;  // __metadata__, empty when absent
  bool has_metadata = false;
  std::shared_ptr<const void> names;  // the text of the header, of which names are parts
};

inline constexpr int kMaxTensorRank = 16;
// Of one file. The largest adapters have 140,000, and 900 experts would make 324,000; a hostile
// header of 100 MB could name a million that hold nothing, and what reads them would take many
// times its size.
inline constexpr size_t kMaxHeaderTensors = 1 << 19;

// The grammar of a safetensors header, nothing about sizes: entries in the order of the text, and
// metadata. Throws Error at `where` or "WHERE: TENSOR". Names stay parts of the text, which
// SafetensorsHeader::names holds.
SafetensorsHeader read_header_grammar(std::string text, const std::string& where);

}  // namespace moelora
