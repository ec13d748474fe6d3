#pragma once

#include <cstdint>
#include <string>

namespace moelora {

// "5GB", "500MB", "64KiB", "1000000": bytes, decimal units unless written with i. Throws Error at `flag`.
uint64_t parse_size(const std::string& flag, const std::string& text);

}  // namespace moelora
