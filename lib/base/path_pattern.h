#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "lib/base/python_regex.h"

namespace moelora {

// Keys of rank_pattern and alpha_pattern in the file's order, with PEFT's rule (utils/other.py,
// get_pattern_key): a key names a module when re.match(r"(.*\.)?(KEY)$", path) succeeds, and the
// first that does decides. Keys without regex syntax are looked up, so that tens of thousands of
// them cost nothing per path; '.' is any character in them too.
class PathPatterns {
 public:
  // Compiled once in the source file rather than in every file that uses it.
  PathPatterns();
  PathPatterns(const PathPatterns&);
  PathPatterns(PathPatterns&&) noexcept;
  PathPatterns& operator=(const PathPatterns&);
  PathPatterns& operator=(PathPatterns&&) noexcept;
  ~PathPatterns();

  void add(std::string key);
  void clear() { *this = {}; }

  size_t size() const { return keys_.size(); }
  const std::string& key(size_t index) const { return keys_[index]; }

  // Throws Error at the key for one that Python refuses or that cannot be evaluated.
  bool matches(size_t index, std::string_view path) const;

  // The first key that names `path`. Throws Error at the key, as PEFT raises, where one that
  // stands before it cannot be evaluated.
  std::optional<size_t> first_match(std::string_view path) const;

 private:
  // Positions of the dots in plain keys of one length: a key is found by putting dots there.
  using Dots = std::vector<size_t>;

  PythonRegex expression(size_t index) const;
  std::optional<size_t> plain_match(std::string_view path) const;

  std::vector<std::string> keys_;
  // Those with regex syntax, by index; nullopt where one cannot be used.
  std::map<size_t, std::optional<PythonRegex>> expressions_;
  std::unordered_map<std::string, size_t> plain_;       // the others, the first of equal ones
  std::map<size_t, std::vector<Dots>> dots_by_length_;  // of plain keys
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
