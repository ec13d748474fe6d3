#include "lib/diff/number_list.h"

#include <array>
#include <charconv>
#include <cstddef>
#include <limits>
#include <system_error>
#include <utility>

namespace moelora {
namespace {

constexpr std::array<std::pair<std::string_view, double>, 3> kNotFinite = {
    {{"-Infinity", -std::numeric_limits<double>::infinity()},
     {"Infinity", std::numeric_limits<double>::infinity()},
     {"NaN", std::numeric_limits<double>::quiet_NaN()}}};

class NumberReader {
 public:
  explicit NumberReader(std::string_view text) : at_(text.data()), end_(at_ + text.size()) {}

  std::vector<Sequence> read() {
    std::vector<Sequence> out;
    if (!take('[')) return {};
    const bool is_nested = peek() == '[';
    do
      if (is_nested ? !list(out.emplace_back()) : !values(out.emplace_back())) return {};
    while (is_nested && take(','));
    if (!take(']') || peek() != '\0' || at_ != end_) return {};
    return out;
  }

 private:
  char peek() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) ++at_;
    return at_ == end_ ? '\0' : *at_;
  }
  bool take(char c) {
    if (peek() != c || at_ == end_) return false;
    ++at_;
    return true;
  }
  bool take(std::string_view word) {
    if (!std::string_view(at_, static_cast<size_t>(end_ - at_)).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }

  bool list(Sequence& out) { return take('[') && values(out) && take(']'); }

  bool values(Sequence& out) {
    do
      if (!value(out)) return false;
    while (take(','));
    out.logprobs.shrink_to_fit();
    return true;
  }

  bool value(Sequence& out) {
    peek();
    if (take("null")) return out.add(std::nullopt), true;
    const bool is_quoted = take('"');
    for (const std::string_view word : {"-Infinity", "Infinity", "NaN"})
      if (take(word)) return out.add(not_finite(word)), !is_quoted || take("\"");
    return !is_quoted && number(out);
  }

  // As JSON has it: no leading zero or plus, digits around the point.
  bool number(Sequence& out) {
    const char* const begin = at_;
    if (at_ != end_ && *at_ == '-') ++at_;
    const char* const digits = at_;
    if (!take_digits() || (*digits == '0' && at_ != digits + 1)) return false;
    if (take(".") && !take_digits()) return false;
    if (take("e") || take("E")) {
      if (!take("-")) take("+");
      if (!take_digits()) return false;
    }
    double found = 0;
    if (std::from_chars(begin, at_, found).ec != std::errc()) return false;
    out.add(found);
    return true;
  }
  bool take_digits() {
    const char* const begin = at_;
    while (at_ != end_ && *at_ >= '0' && *at_ <= '9') ++at_;
    return at_ != begin;
  }

  const char* at_;
  const char* const end_;
};

}  // namespace

std::vector<Sequence> read_number_list(std::string_view text) { return NumberReader(text).read(); }

std::optional<double> not_finite(std::string_view text) {
  for (const auto& [word, value] : kNotFinite)
    if (text == word) return value;
  return std::nullopt;
}

}  // namespace moelora
