#pragma once

#include <fmt/core.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "lib/base/error.h"
#include "lib/io/torch/pickle.h"

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
  template <class... T>
  [[noreturn]] void refuse(fmt::format_string<T...> what, T&&... values) const {
    fail(fmt::format(what, std::forward<T>(values)...), hint_);
  }
  template <class... T>  // what may run code elsewhere
  [[noreturn]] void distrust(fmt::format_string<T...> what, T&&... values) const {
    fail(fmt::format(what, std::forward<T>(values)...),
         "Nothing of it was run, but Python might: ask its author for safetensors.");
  }

 private:
  using Kind = PickleValue::Kind;
  using Arguments = std::span<const PickleValue>;

  [[noreturn]] void fail(const std::string& what, const std::string& hint) const;

  PickleContainer* container(const PickleValue& value);
  void close_into(int& depth, std::span<const PickleValue> children);
  PickleContainer& open_container(const PickleValue& value);
  void count_node();
  void count_cells(size_t count);

  Arguments items(const PickleValue& tuple) const;
  PickleValue set(Arguments arguments);
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
  std::unordered_map<std::string_view, size_t> storage_of_key_;
};

}  // namespace moelora
