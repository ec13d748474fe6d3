#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lib/engine/sglang/copy/copy_rows.h"
#include "lib/engine/sglang/load/cpu_adapter.h"

namespace moelora::sglang {

// Integers as few half-open runs; made for runs that mostly follow each other.
class Runs {
 public:
  void add(int64_t first, int64_t end);
  bool covers(int64_t size) const;  // all of [0, size)
  bool empty() const { return runs_.empty(); }

 private:
  std::vector<std::pair<int64_t, int64_t>> runs_;
};

// Collects over all ranks which values of each source reach a buffer. Every write is a box, and the
// boxes of all ranks fill a product of rows, columns and experts.
class CopiedValues : public WriteSink {
 public:
  explicit CopiedValues(const std::vector<Source>& sources)
      : sources_(sources), of_(sources.size()) {}

  void write(const Write& write) override;

  bool all_whole() const;  // of what is copied

  bool is_copied(int32_t source) const { return !at(source).rows.empty(); }
  bool is_whole(int32_t source) const;
  bool is_misplaced(int32_t source) const { return at(source).misplaced; }
  bool is_expert(int32_t source) const { return at(source).expert; }  // reaches an experts' buffer
  // "layers.0.qkv_proj.A", "" when not copied.
  const std::string& buffer(int32_t source) const { return at(source).buffer; }

 private:
  struct Of {
    Runs rows, columns, experts;
    std::string buffer;
    bool misplaced = false, expert = false;
  };
  const Of& at(int32_t source) const { return of_[static_cast<size_t>(source)]; }

  const std::vector<Source>& sources_;
  std::vector<Of> of_;
};

}  // namespace moelora::sglang
