#include "lib/engine/sglang/names.h"

#include <limits>

#include "lib/base/dotted_path.h"

namespace moelora::sglang {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// N of the first "WORD.N." in `name`, where `word` ends in a dot.
std::optional<int64_t> number_after(std::string_view name, std::string_view word) {
  for (size_t at = name.find(word); at != std::string_view::npos; at = name.find(word, at + 1)) {
    size_t end = at + word.size();
    int64_t number = 0;
    constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
    for (; end < name.size() && is_digit(name[end]); ++end)
      number = number > (kMost - 9) / 10 ? kMost : number * 10 + (name[end] - '0');
    if (end > at + word.size() && end < name.size() && name[end] == '.') return number;
  }
  return std::nullopt;
}

std::string_view without_weight(std::string_view name) {
  constexpr std::string_view kWeight = ".weight";
  return name.ends_with(kWeight) ? name.substr(0, name.size() - kWeight.size()) : name;
}

constexpr std::string_view kFactors[] = {"lora_A", "lora_B", "lora_embedding_A",
                                         "lora_embedding_B"};

}  // namespace

std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  out.reserve(text.size() + to.size());
  size_t done = 0;
  for (size_t at = text.find(from); at != std::string_view::npos; at = text.find(from, done)) {
    out += text.substr(done, at - done);
    out += to;
    done = at + from.size();
  }
  return out += text.substr(done);
}

std::optional<int64_t> layer_of(std::string_view name) { return number_after(name, "layers."); }

std::optional<int64_t> expert_of(std::string_view name) { return number_after(name, "experts."); }

std::string_view module_of(std::string_view name) {
  for (std::string_view factor : kFactors) {
    const size_t at = name.find(factor);
    if (at != std::string_view::npos && at > 0) return leaf_of(name.substr(0, at - 1));
  }
  return leaf_of(parent_of(name));
}

bool is_factor(std::string_view name) {
  const std::string_view last = leaf_of(without_weight(name));
  for (std::string_view factor : kFactors)
    if (last == factor) return true;
  return false;
}

}  // namespace moelora::sglang
