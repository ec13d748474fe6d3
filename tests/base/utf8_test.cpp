#include "lib/base/utf8.h"

#include <doctest/doctest.h>

using namespace moelora;
using namespace std::string_literals;

TEST_CASE("the borders of UTF-8 are where Unicode puts them") {
  for (const char* const sound :
       {"", "a", "\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
        "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    CAPTURE(sound);
    CHECK_FALSE(find_invalid_utf8(sound).has_value());
  }
  for (const char* const bad :
       {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC2", "\xC2\x41", "\xE0\x80\x80", "\xE0\x9F\xBF",
        "\xE2\x82", "\xE2\x82\x41", "\xED\xA0\x80", "\xED\xBF\xBF", "\xF0\x80\x80\x80",
        "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFE", "\xFF"}) {
    CAPTURE(bad);
    CHECK(find_invalid_utf8(bad) == uint64_t{0});
  }
}

TEST_CASE("the offset of a bad byte is exact at every distance from the beginning") {
  for (size_t before = 0; before < 40; ++before) {
    const std::string text = std::string(before, 'x') + "\xFF" + std::string(20, 'y');
    CHECK(find_invalid_utf8(text) == before);
  }
}

TEST_CASE("a name is printed so that no terminal obeys it") {
  CHECK(printable("model.layers.0.q_proj") == "model.layers.0.q_proj");
  CHECK(printable("a\x1b[31m\n\0b"s) == "a\\x1b[31m\\x0a\\x00b");
  CHECK(printable("\xC3\xA9\xC2\x9B\xE2\x80\xAE\xEF\xBB\xBF") ==
        "\xC3\xA9\\u{9b}\\u{202e}\\u{feff}");
  CHECK(printable("a\xFF\xC3") == "a\\xff\\xc3");
  CHECK(printable("12345", 5) == "12345");
  CHECK(printable("123456", 5) == "12345...");
  CHECK(printable("") == "\"\"");
  CHECK(quoted("") == "\"\"");
  CHECK(quoted("a\tb") == "\"a\\x09b\"");
}
