#include "tools/sizes.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <optional>
#include <string_view>

#include "lib/base/checked.h"
#include "lib/base/error.h"

namespace moelora {

uint64_t parse_size(const std::string& flag, const std::string& text) {
  struct Unit {
    std::string_view name;
    uint64_t bytes;
  };
  constexpr std::array<Unit, 7> kUnits = {{{"B", 1},
                                           {"KB", 1000},
                                           {"MB", 1000'000},
                                           {"GB", 1000'000'000},
                                           {"KiB", 1u << 10},
                                           {"MiB", 1u << 20},
                                           {"GiB", 1u << 30}}};
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  for (const Unit& u : kUnits)
    if (error == std::errc() && u.name == unit)
      if (const auto bytes = checked_mul(value, u.bytes); bytes && *bytes > 0) return *bytes;
  if (error == std::errc() && unit.empty())
    throw Error(flag, fmt::format("\"{}\" has no unit", text),
                fmt::format("write {0}GB or {0}GiB (B, KB, MB, KiB and MiB are known too)", value));
  throw Error(flag, fmt::format("\"{}\" is not a size", text), "write 5GB, 500MB or 64MiB");
}

namespace {

// The numbers of "A-B"; one alone is both.
std::optional<std::pair<int, int>> parse_two(std::string_view text, char between) {
  const char *at = text.data(), *end = at + text.size();
  int first = 0, last = 0;
  auto read = std::from_chars(at, end, first);
  if (read.ec != std::errc()) return std::nullopt;
  if (read.ptr == end) return std::pair(first, first);
  if (*read.ptr != between) return std::nullopt;
  read = std::from_chars(read.ptr + 1, end, last);
  if (read.ec != std::errc() || read.ptr != end) return std::nullopt;
  return std::pair(first, last);
}

}  // namespace

std::pair<int, int> parse_layers(const std::string& flag, const std::string& text) {
  const auto layers = parse_two(text, '-');
  if (!layers || layers->first < 0 || layers->second < layers->first)
    throw Error(flag, fmt::format("\"{}\" is not a range of layers", text), "write 3 or 0-11");
  return *layers;
}

std::pair<int, int> parse_part(const std::string& flag, const std::string& text) {
  const auto part = parse_two(text, '/');
  if (!part || text.find('/') == std::string::npos)
    throw Error(flag, fmt::format("\"{}\" is not a part of so many", text),
                "write 3/16: the third of 16");
  return *part;
}

}  // namespace moelora
