#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lib/base/tensor.h"

namespace moelora::sglang {

constexpr int32_t kZeros = -1;

// Rows of a staged tensor: all of one source tensor, or zeros.
struct Block {
  int32_t source;  // kZeros, or an index in CpuAdapter::sources
  int64_t rows;
};

// Rows along dim -2 (dim 0 where there is one dim, 1 where there is none).
int64_t row_count(const Shape& shape);
bool is_empty(const Shape& shape);  // without elements

// A tensor in the server's dictionary of a layer: one as the file has it, or several stacked, one
// below the other.
struct Staged {
  std::string name;  // as the server spells it by now
  Shape shape;
  std::vector<Block> blocks;  // their rows sum to the rows of `shape`

  int rank() const { return static_cast<int>(shape.size()); }
  bool is_a() const { return name.find("lora_A") != std::string::npos; }
  std::vector<int32_t> sources() const;
};

std::vector<int32_t> sources_of(std::span<const Staged* const> entries);

// The weights of one layer: Python's dict. Iterates in the order of insertion; replacing a value
// keeps its place, removing and adding again moves it to the end.
class LayerWeights {
 public:
  // Null when there is no such key. Pointers hold until the entry is removed.
  Staged* find(std::string_view name);
  // Adds under its name. Returns the sources of what it replaced.
  std::vector<int32_t> set(Staged value);
  Staged take(Staged& entry);  // removes it

  // A loop over list(weights.keys()): calls `step` with each entry of now that still is one when
  // its turn comes.
  template <class F>
  void each(F&& step) {
    const size_t count = entries_.size();
    for (size_t i = 0; i < count; ++i)
      if (entries_[i].live) step(entries_[i].value);
  }

 private:
  struct Entry {
    Staged value;
    bool live = true;
  };
  std::deque<Entry> entries_;
  std::unordered_map<std::string_view, Entry*> by_name_;  // views of the entries' names
};

}  // namespace moelora::sglang
