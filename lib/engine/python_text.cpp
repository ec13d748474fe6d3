#include "lib/engine/python_text.h"

#include <fmt/format.h>

#include "lib/base/utf8.h"

namespace moelora::sglang {
namespace {

constexpr size_t kLongestName = 2000;

std::string joined(const NameSet& names) {
  std::string out;
  for (const std::string& name : names) {
    if (!out.empty()) out += ", ";
    out += py_repr(name);
  }
  return out;
}

}  // namespace

std::string py_repr(std::string_view text) {
  const bool single = text.find('\'') == std::string_view::npos;
  const char quote = single || text.find('"') != std::string_view::npos ? '\'' : '"';
  std::string out(1, quote);
  for (char c : text) {
    if (c == '\\' || c == quote) out += '\\';
    out += c;
  }
  return in_text(out + quote);
}

std::string py_list(const NameSet& names) { return "[" + joined(names) + "]"; }

std::string py_set(const NameSet& names) {
  return names.empty() ? "set()" : "{" + joined(names) + "}";
}

std::string py_size(std::span<const int64_t> v) {
  return fmt::format("torch.Size([{}])", fmt::join(v, ", "));
}

std::string in_text(std::string_view name) { return printable(name, kLongestName); }

}  // namespace moelora::sglang
