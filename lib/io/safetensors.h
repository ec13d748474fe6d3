#pragma once

#include <cstdint>
#include <string>

#include "lib/base/tensor.h"
#include "lib/io/file.h"
#include "lib/io/safetensors_header.h"

namespace moelora {

// A sound safetensors file: header checked, tensors lazy.
struct SafetensorsFile {
  FilePtr file;
  SafetensorsHeader header;
  TensorMap tensors;
};

SafetensorsFile open_safetensors(const InputPath& path);

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
