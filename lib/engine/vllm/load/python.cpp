#include "lib/engine/vllm/load/python.h"

#include <fmt/format.h>

#include <algorithm>

namespace moelora::vllm {
namespace {

std::string joined(const std::vector<std::string>& items, char open, char close) {
  std::string out(1, open);
  for (size_t i = 0; i < std::min(items.size(), kListed); ++i)
    out += (i == 0 ? "" : ", ") + repr(items[i]);
  if (items.size() > kListed) out += fmt::format(", ... ({} entries)", items.size());
  return out + close;
}

}  // namespace

std::string_view type_name(const Json& value) {
  switch (value.kind()) {
    case Json::Kind::null:
      return "NoneType";
    case Json::Kind::boolean:
      return "bool";
    case Json::Kind::integer:
      return "int";
    case Json::Kind::real:
      return "float";
    case Json::Kind::string:
      return "str";
    case Json::Kind::array:
      return "list";
    case Json::Kind::object:
      return "dict";
  }
  return "";
}

bool truthy(const Json& value) {
  switch (value.kind()) {
    case Json::Kind::null:
      return false;
    case Json::Kind::boolean:
      return value.as_bool();
    case Json::Kind::integer:
    case Json::Kind::real:
      return value.as_double() != 0;
    case Json::Kind::string:
      return !value.as_string().empty();
    case Json::Kind::array:
      return !value.items().empty();
    case Json::Kind::object:
      return !value.members().empty();
  }
  return false;
}

std::string str(const Json& value) {
  if (value.is(Json::Kind::null)) return "None";
  if (value.is(Json::Kind::boolean)) return value.as_bool() ? "True" : "False";
  if (value.is(Json::Kind::real)) return Json(value.as_double()).dump(-1);
  return value.dump(-1);
}

std::string repr(std::string_view text) {
  const char quote =
      text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos ? '"'
                                                                                            : '\'';
  std::string out(1, quote);
  for (char c : text) {
    if (c == quote || c == '\\')
      out += {'\\', c};
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    else
      out += c;
  }
  return out + quote;
}

std::string list_text(const std::vector<std::string>& items) { return joined(items, '[', ']'); }

std::string set_text(std::vector<std::string> items) {
  std::sort(items.begin(), items.end());
  return items.empty() ? "set()" : joined(items, '{', '}');
}

}  // namespace moelora::vllm
