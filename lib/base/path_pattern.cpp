#include "lib/base/path_pattern.h"

#include <algorithm>

#include "lib/base/error.h"

namespace moelora {
namespace {

constexpr size_t kMostExpressions = 1000;  // each is tried on every path

bool is_plain(std::string_view key) {
  return key.find_first_of("\\*+?()[]{}|^$") == std::string_view::npos;
}

std::vector<size_t> dots_of(std::string_view key) {
  std::vector<size_t> out;
  for (size_t i = 0; i < key.size(); ++i)
    if (key[i] == '.') out.push_back(i);
  return out;
}

// One byte per character, and each what '.' may stand for.
bool is_plain_path(std::string_view path) {
  return std::all_of(path.begin(), path.end(),
                     [](char c) { return static_cast<signed char>(c) >= 0 && c != '\n'; });
}

// Whether re.match(r"(.*\.)?(KEY)$", path) succeeds for a plain key.
bool ends_in(std::string_view path, std::string_view key) {
  if (key.size() > path.size()) return false;
  const size_t from = path.size() - key.size();
  if (from > 0 && path[from - 1] != '.') return false;
  for (size_t i = 0; i < key.size(); ++i)
    if (key[i] != '.' && key[i] != path[from + i]) return false;
  return true;
}

}  // namespace

PathPatterns::PathPatterns() = default;
PathPatterns::PathPatterns(const PathPatterns&) = default;
PathPatterns::PathPatterns(PathPatterns&&) noexcept = default;
PathPatterns& PathPatterns::operator=(const PathPatterns&) = default;
PathPatterns& PathPatterns::operator=(PathPatterns&&) noexcept = default;
PathPatterns::~PathPatterns() = default;

PythonRegex PathPatterns::expression(size_t index) const {
  return PythonRegex("(.*\\.)?(" + keys_[index] + ")$");
}

void PathPatterns::add(std::string key) {
  const size_t index = keys_.size();
  keys_.push_back(std::move(key));
  const std::string& text = keys_.back();
  if (is_plain(text)) {
    auto& known = dots_by_length_[text.size()];
    if (Dots dots = dots_of(text); std::find(known.begin(), known.end(), dots) == known.end())
      known.push_back(std::move(dots));
    plain_.emplace(text, index);
    return;
  }
  auto& compiled = expressions_[index];
  if (expressions_.size() > kMostExpressions) return;
  try {
    compiled = expression(index);
  } catch (const Error&) {  // said when it is asked for
  }
}

bool PathPatterns::matches(size_t index, std::string_view path) const {
  const auto known = expressions_.find(index);
  if (known == expressions_.end() && is_plain_path(path)) return ends_in(path, keys_[index]);
  try {
    if (known != expressions_.end() && known->second) return known->second->match(path);
    const PythonRegex compiled = expression(index);
    if (known == expressions_.end()) return compiled.match(path);
  } catch (const Error& error) {
    throw Error(keys_[index], error.text(), error.advice());
  }
  throw Error(keys_[index], "stands behind 1000 other expressions, more than are evaluated",
              "write keys without regex syntax, or fewer expressions");
}

std::optional<size_t> PathPatterns::plain_match(std::string_view path) const {
  std::optional<size_t> first;
  for (size_t begin = 0; begin != std::string_view::npos;) {
    const std::string_view end = path.substr(begin);
    if (const auto known = dots_by_length_.find(end.size()); known != dots_by_length_.end())
      for (const Dots& dots : known->second) {
        std::string key(end);
        for (const size_t dot : dots) key[dot] = '.';
        const auto found = plain_.find(key);
        if (found != plain_.end() && (!first || found->second < *first)) first = found->second;
      }
    const size_t dot = path.find('.', begin);
    begin = dot == std::string_view::npos ? dot : dot + 1;
  }
  return first;
}

std::optional<size_t> PathPatterns::first_match(std::string_view path) const {
  if (!is_plain_path(path)) {
    for (size_t i = 0; i < size(); ++i)
      if (matches(i, path)) return i;
    return std::nullopt;
  }
  const auto plain = plain_match(path);
  for (const auto& [index, compiled] : expressions_) {
    if (plain && *plain < index) break;
    if (matches(index, path)) return index;
  }
  return plain;
}

}  // namespace moelora
