#include "lib/engine/python_text.h"

#include <fmt/format.h>

#include <array>

#include "lib/base/utf8.h"

namespace moelora {
namespace {

constexpr size_t kLongestName = 2000;

template <class Names>
std::string joined(const Names& names, size_t most) {
  std::string out;
  size_t count = 0;
  for (const std::string& name : names) {
    if (count == most) return out + fmt::format(", ... ({} entries)", names.size());
    if (count++ > 0) out += ", ";
    out += py_repr(name);
  }
  return out;
}

}  // namespace

std::string_view py_type(const Json& value) {
  constexpr std::array<std::string_view, 7> kNames = {"NoneType", "bool", "int", "float",
                                                      "str",      "list", "dict"};
  static_assert(kNames.size() == static_cast<size_t>(Json::Kind::object) + 1);
  return kNames[static_cast<size_t>(value.kind())];
}

bool py_bool(const Json& value) {
  if (value.is(Json::Kind::null)) return false;
  if (value.is(Json::Kind::boolean)) return value.as_bool();
  if (value.is_number()) return value.as_double() != 0;
  if (value.is(Json::Kind::string)) return !value.as_string().empty();
  return !value.items().empty() || !value.members().empty();
}

std::string py_str(const Json& value) {
  if (value.is(Json::Kind::null)) return "None";
  if (value.is(Json::Kind::boolean)) return value.as_bool() ? "True" : "False";
  if (value.is(Json::Kind::real)) return Json(value.as_double()).dump(-1);
  return value.dump(-1);
}

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

std::string py_size(std::span<const int64_t> v) {
  return fmt::format("torch.Size([{}])", fmt::join(v, ", "));
}

std::string py_list(const std::vector<std::string>& names, size_t most) {
  return "[" + joined(names, most) + "]";
}

std::string py_list(const NameSet& names) { return "[" + joined(names, kAllNames) + "]"; }

std::string py_set(const NameSet& names, size_t most) {
  return names.empty() ? "set()" : "{" + joined(names, most) + "}";
}

std::string in_text(std::string_view name) { return printable(name, kLongestName); }

}  // namespace moelora
