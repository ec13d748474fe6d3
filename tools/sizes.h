#pragma once

#include <cstdint>
#include <string>
#include <utility>

namespace moelora {

// "5GB", "500MB", "64KiB", "1000000": bytes, decimal units unless written with i. Throws Error at
// `flag`.
uint64_t parse_size(const std::string& flag, const std::string& text);

// "3", "0-11": first and last layer, both inclusive. Throws Error at `flag`.
std::pair<int, int> parse_layers(const std::string& flag, const std::string& text);

// "3/16": part 3 of 16. Throws Error at `flag`.
std::pair<int, int> parse_part(const std::string& flag, const std::string& text);

}  // namespace moelora
