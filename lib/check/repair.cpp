#include "lib/check/repair.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>

#include "lib/base/utf8.h"

namespace moelora {
namespace {

bool is_plain(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
         std::string_view("_-./=@:,+%").find(c) != std::string_view::npos;
}

// $'..', which can be shown and pasted whatever bytes a path has: "\n" is $'\012'.
std::string in_escapes(std::string_view word) {
  std::string out = "$'";
  for (const char c : word) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f)
      out += fmt::format("\\{:03o}", byte);
    else if (c == '\\' || c == '\'')
      out += std::string("\\") + c;
    else
      out += c;
  }
  return out + "'";
}

std::string_view dtype_word(DType dtype) {
  return dtype == DType::F32 ? "f32" : dtype == DType::F16 ? "f16" : "bf16";
}

}  // namespace

std::string shell_word(std::string_view word) {
  if (!word.empty() && word.front() != '=' && std::all_of(word.begin(), word.end(), is_plain))
    return std::string(word);
  if (printable(word, word.size() * 4 + 1) != word) return in_escapes(word);
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string Repair::command(std::string_view out) const {
  std::string line = "lora-convert adapter";
  const auto add = [&](std::string_view flag, std::string_view value) {
    if (!value.empty()) line += " " + std::string(flag) + " " + shell_word(value);
  };
  // A path that begins like an option.
  line += " " + shell_word((adapter.starts_with('-') ? "./" : "") + adapter);
  line += " " + shell_word(out);
  add("--for", engine);
  add("--to", to);
  add("--from", load.from);
  add("--base", load.base);
  for (const std::string& path : load.model_specs) add("--model-spec", path);
  if (load.links == Links::all) line += " --follow-links";
  if (load.read.b_order) add("--b-order", b_order_name(*load.read.b_order));
  if (load.read.roles) add("--roles", roles_name(*load.read.roles));
  for (const std::string& pair : server_options) add("--server-option", pair);
  for (const std::string& part : drop) add("--drop", part);
  if (dtype) add("--dtype", dtype_word(*dtype));
  return line;
}

}  // namespace moelora
