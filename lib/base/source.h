#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/dtype.h"

namespace moelora {

// A flat run of elements of one type that can be read in ranges: a tensor's bytes in a file,
// bytes in memory, or a computation over those (cast, MXFP4 decode). Tensors are strided views
// of sources. Immutable and safe to read from several threads.
class Source {
 public:
  Source(DType dtype, int64_t elements) : dtype_(dtype), elements_(elements) {}
  virtual ~Source() = default;
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;

  DType dtype() const { return dtype_; }
  int64_t elements() const { return elements_; }

  // Writes elements [first, first+count) to `out` (count * dtype_bytes bytes).
  // Ranges are multiples of granule() at both ends, or end at elements(). Throws Error.
  virtual void read(int64_t first, int64_t count, std::byte* out) const = 0;

  // The smallest aligned range that can be read on its own (32 for MXFP4 blocks).
  virtual int64_t granule() const { return 1; }

  // What the user calls these bytes: "path: tensor name".
  virtual std::string where() const = 0;

  // Names of the input tensors behind this source, and whether each element is an exact copy:
  // what conversion.json reports. A cast answers with its inner source's names and "cast to BF16".
  virtual std::vector<std::string> inputs() const { return {}; }
  virtual std::string change() const { return {}; }

 private:
  DType dtype_;
  int64_t elements_;
};

using SourcePtr = std::shared_ptr<const Source>;

// A computation over the elements of another source.
class ComputedSource : public Source {
 public:
  ComputedSource(SourcePtr inner, DType dtype, int64_t elements)
      : Source(dtype, elements), inner_(std::move(inner)) {}
  int64_t granule() const override { return inner_->granule(); }
  std::string where() const override { return inner_->where(); }
  std::vector<std::string> inputs() const override { return inner_->inputs(); }
  std::string change() const override { return inner_->change(); }

 protected:
  std::string change_and(const std::string& step) const;  // "CHANGE OF INNER, STEP"

  SourcePtr inner_;
};

// Bytes in memory. `bytes` holds whole elements of `dtype`.
class MemorySource final : public Source {
 public:
  MemorySource(DType dtype, std::vector<std::byte> bytes, std::string where = "memory");
  void read(int64_t first, int64_t count, std::byte* out) const override;
  std::string where() const override { return where_; }

 private:
  std::vector<std::byte> bytes_;
  std::string where_;
};

}  // namespace moelora
