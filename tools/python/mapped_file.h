#pragma once

#include <cstdint>
#include <vector>

#include "lib/base/tensor.h"
#include "lib/io/file.h"
#include "lib/io/file_stamp.h"

namespace moelora::python {

// A file that tensors are read from, mapped read-only at once: a change of folder later, or another
// file under its name, leads to no other bytes.
class MappedFile {
 public:
  // Throws Error where the path of `file` leads to something else by now.
  explicit MappedFile(const File& file);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  // Null where the file system maps nothing.
  const uint8_t* data() const { return data_; }
  size_t size() const { return static_cast<size_t>(stamp_.size); }

  // Throws Error when the file itself was written or cut since, under whatever name.
  void check_unchanged() const;

 private:
  int fd_ = -1;
  const uint8_t* data_ = nullptr;
  FileStamp stamp_;
};

// The files that tensors lie in, as they are or as parts.
std::vector<const File*> files_of(const Tensor& tensor);

}  // namespace moelora::python
