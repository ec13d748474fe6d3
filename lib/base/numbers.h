#pragma once

#include <charconv>
#include <optional>
#include <string_view>

namespace moelora {

// The whole of `text` as a number; nullopt where it is anything else, or does not fit.
template <class T>
std::optional<T> parse_number(std::string_view text) {
  T value{};
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || rest != end) return std::nullopt;
  return value;
}

}  // namespace moelora
