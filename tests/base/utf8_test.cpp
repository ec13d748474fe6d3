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
  CHECK(in_quotes("") == "\"\"");
  CHECK(in_quotes("a\tb") == "\"a\\x09b\"");
}

TEST_CASE("what nobody sees is shown as an escape, what is seen stays") {
  constexpr char32_t kUnseen[] = {
      0x00,   0x1F,   0x7F,   0x9F,   0xAD,    0x34F,   0x61C,   0x115F,  0x180E,  0x200B,  0x200D,
      0x200F, 0x2028, 0x2029, 0x202E, 0x2060,  0x2069,  0x206F,  0x3164,  0xFDD0,  0xFE0F,  0xFEFF,
      0xFFA0, 0xFFF9, 0xFFFE, 0xFFFF, 0x1D173, 0x1FFFE, 0xE0001, 0xE0041, 0xE01EF, 0x10FFFF};
  for (const char32_t c : kUnseen) {
    CAPTURE(static_cast<uint32_t>(c));
    CHECK_FALSE(is_seen(c));
  }
  constexpr char32_t kSeen[] = {0x20,   0x7E,   0xA0,   0xAC,   0xAE,   0x350,  0x2010,  0x202F,
                                0x2070, 0x3163, 0x4E2D, 0xFE10, 0xFFFC, 0xFFFD, 0x1F600, 0xE1000};
  for (const char32_t c : kSeen) {
    CAPTURE(static_cast<uint32_t>(c));
    CHECK(is_seen(c));
  }
  CHECK(printable("\U000e0041\u200b") == "\\u{e0041}\\u{200b}");
}

TEST_CASE("a text of several lines keeps its line breaks, and colors where it has some") {
  CHECK(printable_lines("a\n\u00e9\n") == "a\n\u00e9\n");
  CHECK(printable_lines("a\r\n\xff\u202e") == "a\\x0d\n\\xff\\u{202e}");
  const std::string painted = "\x1b[1;31merror\x1b[0m\n";
  CHECK(printable_lines(painted, true) == painted);
  CHECK(printable_lines(painted) == "\\x1b[1;31merror\\x1b[0m\n");
  for (const char* const other : {"\x1b[2J", "\x1b]0;m", "\x1b[", "\x1b[1", "\x1b"})
    CHECK(printable_lines(other, true).find('\x1b') == std::string::npos);
  CHECK(text_table({{"a", "b"}, {"x\ny", "z"}}) == "a       b\nx\\x0ay  z\n");
  CHECK(xml_escaped("<a\x1b\ufffe&") == "&lt;a\\x1b\\u{fffe}&amp;");
}

TEST_CASE("a CI's runner finds no command, and who parses JSON what was there") {
  const std::pair<const char*, const char*> commands[] = {
      {"::error::x", "\\u003a:error::x"},
      {"a\n \u00a0\u3000::error::x\n", "a\n \u00a0\u3000\\u003a:error::x\n"},
      {"x ##[group]y", "x #\\u0023[group]y"},
      {"##vso[a]##teamcity[b]", "#\\u0023vso[a]#\\u0023teamcity[b]"},
      {"###[a", "##\\u0023[a"},
      {"\"##VSO[a]\"", "\"#\\u0023VSO[a]\""}};
  for (const auto& [text, without] : commands) CHECK(without_commands(text) == without);
  for (const char* const sound : {"", "\n", "a ::b::c", "std::string", "## heading", "##", "##a",
                                  "#[a]", "##a-b[", "  \"a\": \"::error::x\""})
    CHECK(without_commands(sound) == sound);
}
