#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/tensor.h"
#include "lib/io/file.h"

namespace moelora {

// One entry of a safetensors header. Offsets are relative to the data section.
struct TensorEntry {
  std::string name;
  DType dtype;
  std::vector<uint64_t> shape;
  uint64_t begin = 0, end = 0;
};

struct SafetensorsHeader {
  uint64_t data_begin = 0;                      // 8 + header length
  std::vector<TensorEntry> tensors;             // in file order (by begin, then end, then name)
  std::map<std::string, std::string> metadata;  // __metadata__, empty when absent
  bool has_metadata = false;
};

inline constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the reference's limit
inline constexpr uint64_t kHubHeaderBytes = 25'000'000;   // what hub tools still read
inline constexpr int kMaxTensorRank = 16;

// Parses and checks a header: all rules of the reference reader 0.8.0 and the stricter ones of
// this project (duplicate keys, unknown fields, entry as array, dtype as object, null metadata,
// rank above 16). `header` is the JSON text, `file_size` the size of the whole file. Throws Error
// at `where` (or "WHERE: TENSOR"), one text per kind of fault, with offsets, found and expected.
SafetensorsHeader parse_safetensors_header(std::string_view header, uint64_t file_size,
                                           const std::string& where);

// A sound safetensors file: header checked, tensors lazy.
struct SafetensorsFile {
  FilePtr file;
  SafetensorsHeader header;
  TensorMap tensors;
};

SafetensorsFile open_safetensors(const std::string& path);

// The bytes [begin, end) of a file as elements of one type; `name` is the tensor's, for messages.
SourcePtr file_source(FilePtr file, uint64_t begin, DType dtype, int64_t elements,
                      std::string name);

// Where a source's elements lie when it is a plain file range; null otherwise. For the writer,
// which reads neighbours together.
struct FileRange {
  const File* file;
  uint64_t begin;  // absolute offset of element 0
};
const FileRange* file_range(const Source& source);

}  // namespace moelora
