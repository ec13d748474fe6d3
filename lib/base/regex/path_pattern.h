#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "lib/base/regex/python_regex.h"

namespace moelora {

// Keys of rank_pattern and alpha_pattern in the file's order, with PEFT's rule (utils/other.py,
// get_pattern_key): a key names a module when re.match(r"(.*\.)?(KEY)$", path) succeeds, and the
// first that does decides. No key is held against each path: those without regex syntax are looked
// up ('.' is any character in them too), the regular ones are one automaton. What is left (with
// look-around, references ...) is tried one after the other. All of them share one number of steps,
// as do copies, so that no table and no names can keep a machine busy.
class PathPatterns {
 public:
  // Compiled once in the source file rather than in every file that uses it.
  PathPatterns();
  explicit PathPatterns(RegexSteps steps);
  PathPatterns(const PathPatterns&);
  PathPatterns(PathPatterns&&) noexcept;
  PathPatterns& operator=(const PathPatterns&);
  PathPatterns& operator=(PathPatterns&&) noexcept;
  ~PathPatterns();

  void add(std::string key);
  void clear() { *this = {}; }

  size_t size() const { return keys_.size(); }
  const std::string& key(size_t index) const { return keys_[index]; }

  // The first key that names `path`. Throws Error at the key, as PEFT raises, where one that
  // stands before it cannot be evaluated; and where the table is out of steps.
  std::optional<size_t> first_match(std::string_view path) const;

  // What each key comes to on all of `paths`: whether it names one, else why it cannot be
  // evaluated; "" for one that can be and names none.
  struct Use {
    bool names = false;
    std::string fault;
  };
  std::vector<Use> uses(std::span<const std::string> paths) const;

 private:
  enum class Kind : uint8_t { plain, regular, other };
  // Positions of the dots in plain keys of one length: a key is found by putting dots there.
  using Dots = std::vector<size_t>;
  struct Work;

  void add_expression(size_t index);
  const PythonRegex& compiled(size_t index) const;
  bool matches(size_t index, std::string_view path) const;
  template <class F>
  void each_plain(std::string_view path, F&& found) const;
  std::optional<size_t> first_plain(std::string_view path) const;
  size_t first_regular_key() const;
  std::optional<size_t> first_regular(std::string_view path) const;
  std::optional<size_t> first_of_all(std::string_view path) const;
  void use(size_t index, std::string_view path, Use& out) const;
  void take(int64_t steps, size_t index) const;
  [[noreturn]] void refuse_steps(size_t index) const;

  std::vector<std::string> keys_;
  std::vector<Kind> kinds_;
  std::vector<size_t> others_;                     // of that kind
  std::unordered_map<std::string, size_t> plain_;  // the first of equal ones
  std::map<size_t, std::set<Dots>> dots_;          // of plain keys, by length
  RegexSteps steps_;                               // of a new Work
  std::shared_ptr<Work> work_;                     // of copies too
};

// rank_pattern or alpha_pattern: the number that the first matching key gives.
template <class T>
class PatternTable {
 public:
  void add(std::string key, T value) {
    keys_.add(std::move(key));
    values_.push_back(value);
  }
  void clear() { *this = {}; }

  bool empty() const { return values_.empty(); }
  size_t size() const { return values_.size(); }
  const PathPatterns& keys() const { return keys_; }
  const T& value(size_t index) const { return values_[index]; }

  // Null where no key names `path`. Throws as PathPatterns::first_match().
  const T* find(std::string_view path) const {
    const auto index = keys_.first_match(path);
    return index ? &values_[*index] : nullptr;
  }

 private:
  PathPatterns keys_;
  std::vector<T> values_;
};

}  // namespace moelora
