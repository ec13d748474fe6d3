#include "tools/sizes.h"

#include <array>
#include <charconv>
#include <string_view>

#include <fmt/format.h>

#include "lib/base/checked.h"
#include "lib/base/error.h"

namespace moelora {

uint64_t parse_size(const std::string& flag, const std::string& text) {
  struct Unit {
    std::string_view name;
    uint64_t bytes;
  };
  constexpr std::array<Unit, 8> kUnits = {{{"", 1},
                                           {"B", 1},
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
  throw Error(flag, fmt::format("\"{}\" is no size", text), "write 5GB, 500MB or 64MiB");
}

}  // namespace moelora
