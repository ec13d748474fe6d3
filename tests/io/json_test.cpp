#include "lib/io/json.h"

#include <doctest/doctest.h>

#include <cmath>

#include "lib/io/json_scan.h"
#include "tests/io/error_text.h"
#include "tests/io/golden_text.h"
#include "tests/io/temp_folder.h"

using namespace moelora;
using namespace std::string_literals;

namespace {

std::string fault(const std::string& text, const JsonLimits& limits = {}) {
  return error_text([&] { parse_json(text, "f", limits); });
}

std::string nested(size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

// "line:column" of the value at `key`.
std::string place(const Json& json, std::string_view key) {
  const Json* const value = json.find(key);
  return std::to_string(value->line()) + ":" + std::to_string(value->column());
}

}  // namespace

TEST_CASE("JSON comes back as Python's json.dumps writes it") {
  std::string text = read_text(MOELORA_SOURCE_DIR "/tests/io/python_dumps.json");
  for (const auto& [raw, escape] : {std::pair("\x7f", "\\u007f"), {"\u2028", "\\u2028"}})
    text.replace(text.find(raw), std::string_view(raw).size(), escape);  // Python writes these raw
  CHECK(parse_json(text, "f").dump() + "\n" == text);
  CHECK(parse_json("{\"b\":[],\"a\":{},\"n\":[1,2.50],\"l\":[true,null,[[]]]}", "f").dump(-1) ==
        R"({"b": [], "a": {}, "n": [1, 2.50], "l": [true, null, [[]]]})");
  CHECK(parse_json(R"("\"\\\/\b\f\n\r\t\u001F\u007f\u00e9\uD83D\uDE00")", "f").dump() ==
        "\"\\\"\\\\/\\b\\f\\n\\r\\t\\u001f\\u007f\u00e9\U0001F600\"");
}

TEST_CASE("whatever a text holds, its JSON is UTF-8 of characters that are seen") {
  const std::string seen = "\u00e9 \U0001F600 \\ / \u4e2d";
  CHECK(parse_json(Json(seen).dump(), "f").as_string() == seen);
  const std::string unseen = "\u202e\u200b\u0085\ufeff\U000e0041\u2028\ufffe\x1b";
  CHECK(Json(unseen).dump() == R"("\u202e\u200b\u0085\ufeff\udb40\udc41\u2028\ufffe\u001b")");
  CHECK(parse_json(Json(unseen).dump(), "f").as_string() == unseen);
  CHECK(Json(std::string("a\xff\xc3(\xed\xa0\x80")).dump() == R"("a\\xff\\xc3(\\xed\\xa0\\x80")");
  CHECK(Json::object({{"\u202e", 1}}).dump(-1) == R"({"\u202e": 1})");
}

TEST_CASE("a number made here is written as Python's repr writes it") {
  const std::pair<double, const char*> cases[] = {
      {8.0, "8.0"},
      {0.1, "0.1"},
      {1e-5, "1e-05"},
      {1e-4, "0.0001"},
      {0.00012345, "0.00012345"},
      {1e15, "1000000000000000.0"},
      {1e16, "1e+16"},
      {1e22, "1e+22"},
      {1.5e300, "1.5e+300"},
      {-0.0, "-0.0"},
      {123456789012345678.0, "1.2345678901234568e+17"},
      {1.0 / 3, "0.3333333333333333"},
      {5e-324, "5e-324"},
      {1.7976931348623157e308, "1.7976931348623157e+308"},
  };
  for (const auto& [value, text] : cases) CHECK(Json(value).dump() == text);
  CHECK(Json(int64_t{INT64_MIN}).dump() == "-9223372036854775808");
  CHECK(Json(7).dump() == "7");
}

TEST_CASE("kinds, values and the order of keys are kept") {
  const Json json = parse_json(
      R"({"z": null, "t": true, "i": -3, "big": 9223372036854775808, "r": 2.5e1, "s": "x", "a": [1], "o": {}})",
      "f");
  REQUIRE(json.members().size() == 8);
  CHECK(json.members()[0].first == "z");
  CHECK(json.members()[7].first == "o");
  CHECK(json.find("z")->is(Json::Kind::null));
  CHECK(json.find("t")->as_bool());
  CHECK(json.find("i")->as_int() == -3);
  CHECK(json.find("i")->as_double() == -3.0);
  CHECK(json.find("big")->is(Json::Kind::real));
  CHECK(json.find("big")->as_double() == 9223372036854775808.0);
  CHECK(json.find("big")->dump() == "9223372036854775808");
  CHECK(json.find("r")->as_double() == 25.0);
  CHECK(json.find("r")->dump() == "2.5e1");
  CHECK(json.find("s")->as_string() == "x");
  CHECK(json.find("a")->items().size() == 1);
  CHECK(json.find("absent") == nullptr);
  CHECK(json.find("s")->find("s") == nullptr);
  CHECK(json.find("a")->kind_name() == "an array");
}

TEST_CASE("each value knows its line and column, counted in characters") {
  const Json json =
      parse_json("{\n  \"a\": 1, \"b\" : [ 2,\n\t-3.5 ],\r\n\"\u00e9\u00e9\": \"x\"}", "f");
  CHECK(json.line() == 1);
  CHECK(json.column() == 1);
  CHECK(place(json, "a") == "2:8");
  CHECK(place(json, "b") == "2:17");
  CHECK(json.find("b")->items()[0].column() == 19);
  CHECK(json.find("b")->items()[1].line() == 3);
  CHECK(json.find("b")->items()[1].column() == 2);
  CHECK(place(json, "\u00e9\u00e9") == "4:7");
  CHECK(Json(1).line() == 0);
}

TEST_CASE("values are compared by what they say") {
  const auto same = [](const char* a, const char* b) {
    return parse_json(a, "a") == parse_json(b, "b");
  };
  CHECK(same("{\"a\": 1, \"b\": [2.0, \"x\"]}", "{\"b\": [2, \"x\"], \"a\": 1.0}"));
  CHECK(same("1e1", "10"));
  CHECK(same("null", "null"));
  CHECK_FALSE(same("9007199254740993", "9007199254740992"));
  CHECK_FALSE(same("{\"a\": 1}", "{\"a\": 1, \"b\": 1}"));
  CHECK_FALSE(same("{\"a\": 1}", "{\"b\": 1}"));
  CHECK_FALSE(same("[1, 2]", "[2, 1]"));
  CHECK_FALSE(same("[1]", "[1, 1]"));
  CHECK_FALSE(same("\"1\"", "1"));
  CHECK_FALSE(same("true", "false"));
  CHECK_FALSE(same("null", "false"));
}

TEST_CASE("a key is replaced in place, appended or taken out") {
  Json json = parse_json("{\"a\": 1, \"b\": 2, \"c\": 3}", "f");
  json.set("b", Json::strings({"x", "y"}));
  json.set("d", 0.5);
  json.erase("a");
  CHECK(json.dump(-1) == R"({"b": ["x", "y"], "c": 3, "d": 0.5})");
}

TEST_CASE("each fault of a JSON text has its own message at its line and column") {
  CHECK(fault("{\"a\": [1, {}]}") == "");
  SUBCASE("a key twice") {
    CHECK(fault("{\"a\": 1,\n \"b\": 2, \"a\": 3}") ==
          "f:2:10: the key \"a\" stands twice in this object");
    CHECK(fault("{\"a\": 1, \"\\u0061\": 3}") ==
          "f:1:10: the key \"a\" stands twice in this object");
    CHECK(fault("[{\"a\": {\"x\\ny\": 1, \"x\\ny\": 1}}]") ==
          "f:1:20: the key \"x\\x0ay\" stands twice in this object");
    CHECK(fault("{\"a\": {\"a\": 1}, \"b\": {\"a\": 1}}") == "");
  }
  SUBCASE("Python's literals") {
    CHECK(fault("{\"a\": NaN}") == "f:1:7: NaN is not JSON");
    CHECK(fault("[1,\n -Infinity]") == "f:2:2: -Infinity is not JSON");
    CHECK(fault("Infinity") == "f:1:1: Infinity is not JSON");
    CHECK(error_hint([] { parse_json("NaN", "f"); }) ==
          "Python's json.dump writes it; put a number or null in its place.");
  }
  SUBCASE("a byte order mark") {
    CHECK(fault("\xEF\xBB\xBF{}") == "f:1:1: begins with a byte order mark");
  }
  SUBCASE("invalid UTF-8") {
    CHECK(fault("{\"\u00e9\":\n\"\u00e9\xFF\"}") == "f:2:3: byte 0xff is not valid UTF-8");
    CHECK(fault("\"\xC0\x80\"") == "f:1:2: byte 0xc0 is not valid UTF-8");
    CHECK(fault("\"\xED\xA0\x80\"") == "f:1:2: byte 0xed is not valid UTF-8");
    CHECK(fault("\"\xF4\x90\x80\x80\"") == "f:1:2: byte 0xf4 is not valid UTF-8");
    CHECK(fault("\"\xE2\x82") == "f:1:2: byte 0xe2 is not valid UTF-8");
  }
  SUBCASE("text after the value") {
    CHECK(fault("{}\n{}") == "f:2:1: unexpected text after the JSON value: \"{}\"");
    CHECK(fault("{}\0"s) == "f:1:3: unexpected text after the JSON value: \"\\x00\"");
    CHECK(fault("1 \0 2"s) == "f:1:3: unexpected text after the JSON value: \"\\x00 2\"");
    CHECK(fault("{} ,") == "f:1:4: unexpected text after the JSON value: \",\"");
    CHECK(fault(" {} \n\t\r ") == "");
  }
  SUBCASE("nothing") {
    CHECK(fault("") == "f:1:1: is empty, expected a JSON value");
    CHECK(fault(" \n") == "f:1:1: is empty, expected a JSON value");
  }
  SUBCASE("too deep") {
    CHECK(fault(nested(32)) == "");
    CHECK(error_advised([] { parse_json(nested(33), "f"); }) ==
          "f:1:33: is nested deeper than 32 levels -> No tool writes it so deep: get the file "
          "again, or flatten it.");
    CHECK(fault(nested(1000), {.bytes = 1 << 20, .depth = 1'000'000}) ==
          "f:1:257: is nested deeper than 256 levels");
    CHECK(fault(std::string(1'000'000, '[')) == "f:1:33: is nested deeper than 32 levels");
  }
  SUBCASE("too large") {
    CHECK(fault("[1,2]", {.bytes = 5, .depth = 2}) == "");
    CHECK(error_advised([] { parse_json("[1, 2]", "f", {.bytes = 5, .depth = 2}); }) ==
          "f: has 6 bytes of JSON, more than the 5 that are read -> Check that it is the file that "
          "is meant; leave out what no tool reads.");
  }
  SUBCASE("a number no double holds") {
    CHECK(fault("[1e308]") == "");
    CHECK(fault("[1,1e400]") == "f:1:4: the number 1e400 is out of range");
    for (const char* const large : {"-1e400", "1e+400", "1e99999999999", "-12.5E+308"})
      CHECK(fault("[1," + std::string(large) + "]") ==
            "f:1:4: the number " + std::string(large) + " is out of range");
    // What is next to 0 is in range: the fault is the one behind it.
    for (const char* const small : {"1e-400", "-1e-400", "1e-99999999999", "0.001E-330"})
      CHECK(fault("[" + std::string(small) + ",]").find("unexpected ']'") != std::string::npos);
    CHECK(fault("[" + std::string(1000, '9') + "]") ==
          "f:1:2: the number 999999999999999999999999... is out of range");
  }
  SUBCASE("wrong grammar") {
    CHECK(fault("[1,]") == "f:1:4: unexpected ']', expected '[', '{', or a literal");
    CHECK(fault("[1,,2]") == "f:1:4: unexpected ',', expected '[', '{', or a literal");
    CHECK(fault("{\"a\",1}") == "f:1:5: unexpected ',', expected ':'");
    CHECK(fault("{\"a\" 1}") == "f:1:6: unexpected number literal, expected ':'");
    CHECK(fault("[1 2]") == "f:1:4: unexpected number literal, expected ']'");
    CHECK(fault("{1: 2}") == "f:1:2: unexpected number literal, expected string literal");
    CHECK(fault("{\"a\": tru}") == "f:1:7: invalid literal");
    CHECK(fault("{\"a\": 01}") == "f:1:8: unexpected number literal, expected '}'");
    CHECK(fault("[1+2]") == "f:1:3: invalid literal");
    CHECK(fault("[1") == "f:1:3: unexpected end of input, expected ']'");
    CHECK(fault("{\"a\": -}") == "f:1:7: invalid number, expected digit after '-'");
    CHECK(fault("{\"a\": 1 // x\n}") == "f:1:9: invalid literal");
    CHECK(fault("{\"a\": [1,") ==
          "f:1:10: unexpected end of input, expected '[', '{', or a literal");
    CHECK(fault("{\"a\": \"x") == "f:1:7: invalid string: missing closing quote");
    CHECK(fault("\"a\nb\"") ==
          "f:1:3: invalid string: control character U+000A (LF) must be escaped to \\u000A or \\n");
    CHECK(fault("[\"\\x\"]") == "f:1:4: invalid string: forbidden character after backslash");
    CHECK(fault("[\"\\ud800\"]") ==
          "f:1:9: invalid string: surrogate U+D800..U+DBFF must be followed by U+DC00..U+DFFF");
    CHECK(fault("[\0]"s) == "f:1:2: a NUL byte between values");
  }
}

TEST_CASE("a JSON file is read up to its limit") {
  const TempFolder folder;
  write_text(folder.path("c.json"), "{\"r\":\n 16}");
  CHECK(read_json_file(folder.path("c.json")).find("r")->line() == 2);
  const auto fault_of = [&](const JsonLimits& limits) {
    return error_text([&] { read_json_file(folder.path("c.json"), limits); }, folder.path());
  };
  CHECK(fault_of({.bytes = 10, .depth = 8}) == "");
  CHECK(fault_of({.bytes = 9, .depth = 8}) ==
        "c.json: has 10 bytes, more than the 9 that are read");
  CHECK(error_hint([&] { read_json_file(folder.path("c.json"), {.bytes = 9, .depth = 8}); }) ==
        "Check that it is the file that is meant; leave out what no tool reads.");
  write_text(folder.path("c.json"), "{\"r\":\n NaN}");
  CHECK(fault_of({}) == "c.json:2:2: NaN is not JSON");
}

TEST_CASE("a million brackets, keys or digits neither crash nor take long") {
  const auto repeat = [](const std::string& text, size_t count) {
    std::string out;
    for (size_t i = 0; i < count; ++i) out += text;
    return out;
  };
  const JsonLimits wide{.bytes = 1 << 22, .depth = 256};
  CHECK(fault("[" + repeat("{},", 200'000) + "{}]", wide) == "");
  CHECK(fault("[" + repeat("0,", 500'000) + "0]", wide) == "");
  CHECK(fault("{" + repeat("\"\":0,", 200'000) + "\"a\":0}", wide) ==
        "f:1:7: the key \"\" stands twice in this object");
  std::string keys = "{";
  for (int i = 0; i < 100'000; ++i) keys += "\"" + std::to_string(i) + "\":0,";
  const Json many = parse_json(keys + "\"a\":0}", "f", wide);
  CHECK(many == parse_json(many.dump(), "g", wide));
}

namespace {

struct TokenRecorder final : JsonHandler {
  std::string seen;
  void on(JsonToken& token) override {
    seen += std::to_string(token.offset) + " " + std::string(kind_name(token.kind)) +
            (token.text.empty() ? "" : " " + token.text) + "\n";
    token.text.clear();
  }
  Error error_at(uint64_t, std::string what, std::string) const override { return {"", what}; }
};

}  // namespace

TEST_CASE("the scanner takes and refuses what the library does") {
  const std::string sound =
      R"([{"a\u00e9\n": -1.5e+3, "b": [true, null, "\ud83d\ude00"], "": {}}, 0, 10, 0.5])";
  const auto scans = [](const std::string& text) {
    TokenRecorder ignored;
    return error_text([&] { scan_json(text, 32, ignored); }).empty();
  };
  CHECK(fault(sound) == "");
  CHECK(scans(sound));
  for (size_t at = 0; at < sound.size(); ++at)
    for (const char c : "\"\\{}[]:,.+-eE019utfnlx \n\x7f"s) {
      std::string text = sound;
      text[at] = c;
      CAPTURE(text);
      const std::string said = fault(text);
      CHECK(scans(text) == (said.empty() || said.ends_with("stands twice in this object")));
      CHECK(said.find("that can be read") == std::string::npos);
      CHECK(scans(text.substr(0, at)) == fault(text.substr(0, at)).empty());
    }
}

TEST_CASE("tokens come with the offset of their first byte") {
  TokenRecorder recorder;
  scan_json(" {\"a\" : [-1.5e3,true] , \"\\u0062\":null}", 8, recorder);
  CHECK(recorder.seen ==
        "1 an object\n2 a key a\n8 an array\n9 a number -1.5e3\n16 a boolean\n20 an array\n"
        "24 a key b\n33 null\n37 an object\n");
}
