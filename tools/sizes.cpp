#include "tools/sizes.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
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

std::pair<int, int> parse_layers(const std::string& flag, const std::string& text) {
  const char *at = text.data(), *end = at + text.size();
  int first = 0, last = 0;
  auto read = std::from_chars(at, end, first);
  bool sound = read.ec == std::errc();
  last = first;
  if (sound && read.ptr != end) {
    sound = *read.ptr == '-';
    read = std::from_chars(read.ptr + 1, end, last);
    sound = sound && read.ec == std::errc() && read.ptr == end;
  }
  if (!sound || first < 0 || last < first)
    throw Error(flag, fmt::format("\"{}\" is not a range of layers", text), "write 3 or 0-11");
  return {first, last};
}

}  // namespace moelora
