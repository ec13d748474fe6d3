#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lib/engine/sglang/load/journal.h"

namespace moelora::sglang {

constexpr int32_t kZeros = -1;

// Rows of a staged tensor: all of one source tensor, or zeros.
struct Block {
  int32_t source;  // kZeros, or an index in LoadedWeights::sources
  int64_t rows;
};

// A tensor in the server's dictionary of a layer: one as the file has it, or several stacked, one
// below the other. Rows count along dim -2 (dim 0 where a tensor has one dim).
struct Staged {
  std::string name;  // as the server spells it by now
  Shape shape;
  std::vector<Block> blocks;  // their rows sum to the rows of `shape`

  int rank() const { return static_cast<int>(shape.size()); }
  bool is_a() const { return name.find("lora_A") != std::string::npos; }
  std::vector<int32_t> sources() const;
};

// The weights of one layer: Python's dict. Iterates in the order of insertion; replacing a value
// keeps its place, removing and adding again moves it to the end.
class LayerWeights {
 public:
  // Null when there is no such key. Pointers hold until the entry is removed.
  Staged* find(std::string_view name);
  // Adds under its name. Returns what it replaced, by its blocks (empty: nothing).
  std::vector<Block> set(Staged value);
  Staged take(Staged& entry);  // removes it

  // Entries that a loop over list(weights.keys()) sees: those of now, but for what is removed
  // meanwhile (null).
  size_t count() const { return entries_.size(); }
  Staged* at(size_t index) { return entries_[index].live ? &entries_[index].value : nullptr; }

 private:
  struct Entry {
    Staged value;
    bool live = true;
  };
  std::deque<Entry> entries_;
  std::unordered_map<std::string_view, Entry*> by_name_;  // views of the entries' names
};

}  // namespace moelora::sglang
