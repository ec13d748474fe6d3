#include "lib/base/digest.h"

#include <doctest/doctest.h>

#include <vector>

using namespace moelora;

namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

}  // namespace

TEST_CASE("digests are those of `xxhsum -H2`") {
  CHECK(digest_hex({}) == "99aa06d3014798d86001c324468d497f");
  CHECK(digest_hex(bytes_of("moelora")) == "3963682c13f7d1bebff78c313bb3a0b3");
}

TEST_CASE("bytes may come in pieces of any size") {
  std::vector<std::byte> bytes(100'000);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7 % 251);
  const std::string expected = digest_hex(bytes);
  for (const size_t step : {1u, 63u, 256u, 1000u, 100'000u}) {
    Digest digest;
    for (size_t at = 0; at < bytes.size(); at += step)
      digest.update(std::span(bytes).subspan(at, std::min(step, bytes.size() - at)));
    CHECK(digest.hex() == expected);
  }
  bytes[99'999] ^= std::byte{1};
  CHECK(digest_hex(bytes) != expected);
}
