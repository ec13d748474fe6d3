#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "lib/io/torch/pickle_graph.h"

namespace moelora {

// Makes the nodes of a Pickle: what each operation may be done to, and what it makes. A container
// that became part of another one changes no more, so the graph has no cycles and depths are final.
class PickleBuilder {
 public:
  PickleBuilder(std::string where, std::string hint)
      : where_(std::move(where)), hint_(std::move(hint)) {}

  size_t at = 0;  // byte of the operation in question, for messages

  PickleValue text(std::string_view text);
  PickleValue tuple(std::span<const PickleValue> items);
  PickleValue list();
  PickleValue dict(bool ordered = false);
  PickleValue global(std::string_view module, std::string_view name) const;

  void append(PickleValue list, std::span<const PickleValue> items);
  void set(PickleValue dict, std::span<const PickleValue> keys_and_values);

  PickleValue persistent(PickleValue id);                         // BINPERSID: a storage
  PickleValue call(PickleValue callable, PickleValue arguments);  // REDUCE
  void build(PickleValue object, PickleValue state);              // BUILD

  // The finished graph. REQUIRES: nothing else is called afterwards.
  Pickle finish(PickleValue root);

  std::string describe(const PickleValue& value) const { return moelora::describe(out_, value); }
  [[noreturn]] void refuse(const std::string& what) const;
  [[noreturn]] void distrust(const std::string& what) const;  // what may run code elsewhere

 private:
  using Kind = PickleValue::Kind;
  using Arguments = std::span<const PickleValue>;

  // What is known of a container beyond its content.
  struct Container {
    int depth = 1;
    bool closed = false;
  };

  Container* container(const PickleValue& value);
  void close_into(int& depth, std::span<const PickleValue> children);
  Container& open_container(const PickleValue& value);
  PickleValue add_container(Kind kind, size_t count);
  void count_node();
  void count_cells(size_t count);

  Arguments items(const PickleValue& tuple) const;
  PickleValue tensor(const PickleGlobal& callee, Arguments arguments);
  PickledTensor view(const PickleGlobal& callee, Arguments arguments) const;
  void check_view(const PickledTensor& tensor) const;
  void check_hooks(const PickleValue& hooks) const;
  void check_metadata(const PickleValue& metadata) const;
  PickleValue parameter(Arguments arguments) const;
  PickleValue size(Arguments arguments) const;
  PickleValue device(Arguments arguments) const;
  int64_t natural(const PickleValue& value, const char* what) const;
  std::vector<int64_t> naturals(const PickleValue& value, const char* what) const;
  void check_keys() const;

  std::string where_, hint_;
  Pickle out_;
  size_t nodes_ = 0, cells_ = 0;
  std::vector<Container> tuples_, lists_, dicts_;  // one for each of out_
  std::unordered_map<std::string_view, size_t> storage_of_key_;
};

}  // namespace moelora
