#include "lib/model/dimension.h"

#include <fmt/format.h>

#include <cctype>
#include <charconv>
#include <optional>

#include "lib/base/error.h"

namespace moelora {

class DimensionParser {
 public:
  DimensionParser(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  Dimension parse() {
    Dimension out;
    out.text_ = std::string(text_);
    do out.sum_.push_back(product());
    while (accept('+'));
    if (at_ != text_.size()) fail(fmt::format("unexpected '{}'", text_[at_]));
    return out;
  }

 private:
  Dimension::Product product() {
    Dimension::Product factors = {factor(false)};
    while (true) {
      if (accept('*'))
        factors.push_back(factor(false));
      else if (accept('/'))
        factors.push_back(factor(true));
      else
        return factors;
    }
  }

  Dimension::Factor factor(bool divides) {
    skip_spaces();
    const size_t begin = at_;
    while (at_ < text_.size() && is_word(text_[at_])) ++at_;
    const std::string_view word = text_.substr(begin, at_ - begin);
    if (word.empty()) fail("expected a name or a number");
    if (std::isdigit(static_cast<unsigned char>(word[0])) == 0) {
      return {std::string(word), 1, divides};
    }
    return {"", number(word), divides};
  }

  int64_t number(std::string_view word) {
    int64_t out = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), out);
    if (error != std::errc() || end != word.data() + word.size()) {
      fail(fmt::format("\"{}\" is no number", word));
    }
    return out;
  }

  static bool is_word(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
  }

  void skip_spaces() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }

  bool accept(char c) {
    skip_spaces();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  [[noreturn]] void fail(const std::string& what) {
    throw Error(where_, fmt::format("{} at character {} of \"{}\"", what, at_ + 1, text_),
                "write a sum of products of names and integers, e.g. \"2 * heads * head_dim\"");
  }

  std::string_view text_;
  const std::string& where_;
  size_t at_ = 0;
};

namespace {

std::optional<int64_t> apply(int64_t left, int64_t right, bool divides) {
  int64_t out = 0;
  if (!divides)
    return __builtin_mul_overflow(left, right, &out) ? std::nullopt : std::optional(out);
  if (right <= 0 || left % right != 0) return std::nullopt;
  return left / right;
}

int64_t lookup(const Values& values, const std::string& name, const std::string& where) {
  const auto found = values.find(name);
  if (found == values.end()) {
    throw Error(where, fmt::format("no value is called \"{}\"", name),
                "define it under \"values\"");
  }
  return found->second;
}

}  // namespace

Dimension::Dimension(int64_t constant)
    : text_(std::to_string(constant)), sum_({{Factor{"", constant, false}}}) {}

Dimension Dimension::parse(std::string_view text, const std::string& where) {
  return DimensionParser(text, where).parse();
}

int64_t Dimension::value(const Values& values, const std::string& where) const {
  int64_t sum = 0;
  for (const Product& product : sum_) {
    int64_t total = 1;
    for (const Factor& f : product) {
      const int64_t factor = f.name.empty() ? f.number : lookup(values, f.name, where);
      const auto next = apply(total, factor, f.divides);
      if (!next) {
        throw Error(where, fmt::format("\"{}\": {} {} {} {}", text_, total, f.divides ? "/" : "*",
                                       factor, f.divides ? "is no whole number" : "is too large"));
      }
      total = *next;
    }
    if (__builtin_add_overflow(sum, total, &sum))
      throw Error(where, fmt::format("\"{}\" is too large", text_));
  }
  return sum;
}

std::vector<std::string> Dimension::names() const {
  std::vector<std::string> out;
  for (const Product& product : sum_) {
    for (const Factor& f : product) {
      if (!f.name.empty()) out.push_back(f.name);
    }
  }
  return out;
}

namespace {

// transformers' JambaConfig: mamba_dt_rank "auto" is ceil(hidden_size / 16).
int64_t mamba_dt_rank(const Values& values) { return (values.at("hidden") + 15) / 16; }

struct Function {
  const char* name;
  int64_t (*call)(const Values&);
};
constexpr Function kFunctions[] = {{"mamba_dt_rank", mamba_dt_rank}};

}  // namespace

bool is_value_function(const std::string& name) {
  for (const Function& f : kFunctions) {
    if (name == f.name) return true;
  }
  return false;
}

int64_t value_function(const std::string& name, const Values& values) {
  for (const Function& f : kFunctions) {
    if (name == f.name) return f.call(values);
  }
  return 0;
}

}  // namespace moelora
