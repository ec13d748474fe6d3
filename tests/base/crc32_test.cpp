#include "lib/base/crc32.h"

#include <doctest/doctest.h>

#include <random>
#include <string_view>
#include <vector>

using namespace moelora;

namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// One bit at a time, as the definition reads.
uint32_t by_definition(std::span<const std::byte> bytes) {
  uint32_t state = ~uint32_t{0};
  for (const std::byte b : bytes) {
    state ^= static_cast<uint32_t>(b);
    for (int i = 0; i < 8; ++i) state = state >> 1 ^ ((state & 1) != 0 ? 0xEDB88320 : 0);
  }
  return ~state;
}

std::vector<std::byte> noise(size_t count) {
  std::mt19937 random(7);
  std::vector<std::byte> out(count);
  for (std::byte& b : out) b = static_cast<std::byte>(random());
  return out;
}

}  // namespace

TEST_CASE("the CRC-32 of zip archives") {
  CHECK(crc32(0, bytes_of("")) == 0);
  CHECK(crc32(0, bytes_of("123456789")) == 0xCBF43926);  // the check value of the catalogues
}

TEST_CASE("a CRC is the definition's at every length and start") {
  const auto all = noise(700);
  for (size_t length = 0; length <= 600; ++length) {
    CAPTURE(length);
    const std::span<const std::byte> part(all.data() + length % 17, length);
    REQUIRE(crc32(0, part) == by_definition(part));
  }
}

TEST_CASE("a CRC can be taken in pieces, in order or apart") {
  const auto all = noise(3000);
  const uint32_t whole = crc32(0, all);
  for (size_t cut : {0U, 1U, 63U, 64U, 65U, 1024U, 2999U, 3000U}) {
    CAPTURE(cut);
    const std::span<const std::byte> a(all.data(), cut), b(all.data() + cut, all.size() - cut);
    CHECK(crc32(crc32(0, a), b) == whole);
    CHECK(crc32_join(crc32(0, a), crc32(0, b), b.size()) == whole);
  }
}
