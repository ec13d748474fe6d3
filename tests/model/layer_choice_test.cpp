#include <doctest/doctest.h>

#include "lib/model/expressions.h"
#include "tests/io/error_text.h"

namespace moelora {
namespace {

const Values kValues = {{"two", 2}, {"three", 3}, {"minus", -1}, {"zero", 0}};

// The chosen ones of 8 layers as "01000100".
std::string chosen(const std::string& choice, const std::string& config = "{}") {
  const Json json = parse_json(choice, "f.json"), keys = parse_json(config, "c.json");
  const JsonView view(keys, "c.json");
  const FindKey find = [&](const std::string& key) {
    return key.empty() ? std::optional(view) : view.find(key);
  };
  std::string out;
  for (const bool layer :
       LayerChoice::parse(JsonView(json, "f.json")).layers(8, kValues, find, "f.json"))
    out += layer ? '1' : '0';
  return out;
}

std::string fault(const std::string& choice, const std::string& config = "{}") {
  return error_text([&] { chosen(choice, config); });
}

}  // namespace

TEST_CASE("A layer choice is all, a range, every N, a list or a pattern") {
  CHECK(chosen(R"("all")") == "11111111");
  CHECK(chosen("{}") == "11111111");
  CHECK(chosen(R"({"from": 3})") == "00011111");
  CHECK(chosen(R"({"from": "two", "to": 5})") == "00111100");
  CHECK(chosen(R"({"to": "minus"})") == "11111111");
  CHECK(chosen(R"({"every": 3})") == "00100100");
  CHECK(chosen(R"({"every": "three", "first": "zero"})") == "10010010");
  CHECK(chosen(R"({"every": 1})") == "11111111");
  CHECK(chosen(R"({"every": 4, "first": 1})") == "01000100");
  CHECK(chosen(R"({"every": 2, "first": 4})") == "00001010");
  CHECK(chosen(R"({"from": 2, "every": 2, "first": 0})") == "00101010");
  CHECK(chosen(R"({"list": "moe"})", R"({"moe": [1, 7]})") == "01000001");
  CHECK(chosen(R"({"except": "dense"})", R"({"dense": [0, 2]})") == "01011111");
  CHECK(chosen(R"({"except": "dense"})") == "11111111");
  CHECK(chosen(R"({"pattern": "p", "values": ["E", "*"]})", R"({"p": "MEM*ME-E"})") == "01010101");
  CHECK(chosen(R"({"pattern": "p", "values": "full"})",
               R"({"p": ["l", "l", "l", "full", "l", "l", "l", "full"]})") == "00010001");
}

TEST_CASE("Patterns and lists come in other spellings, count from 1, or go on behind the model") {
  CHECK(chosen(R"({"pattern": "p", "values": ["1", "true"]})",
               R"({"p": [0, 1, 0, 1, true, false, 1, 0]})") == "01011010");
  CHECK(chosen(R"({"pattern": "p", "values": "1", "from": 2})",
               R"({"p": [0, 1, 0, 1, 1, 1, 1, 0]})") == "00011110");
  CHECK(chosen(R"({"list": "moe"})", R"({"moe": "1,7"})") == "01000001");
  CHECK(chosen(R"({"list": "moe", "base": 1})", R"({"moe": [1, 8]})") == "10000001");
  CHECK(chosen(R"({"only": [0, 2]})") == "10100000");
  CHECK(chosen(R"({"list": "moe", "longer": true})", R"({"moe": [1, 8, 9]})") == "01000000");
  CHECK(chosen(R"({"pattern": "p", "values": "E", "longer": true})", R"({"p": "EMMMMMMMEE"})") ==
        "10000000");
  CHECK(fault(R"({"list": "moe"})", R"({"moe": "1,x"})").find("\"x\" is not a layer") !=
        std::string::npos);
  CHECK(fault(R"({"list": "moe", "base": 1})", R"({"moe": [0]})").find("layer 0 is not one of") !=
        std::string::npos);
  CHECK(fault(R"({"only": [8]})").find("layer 8 is not one of the model's 8 layers") !=
        std::string::npos);
  CHECK(fault(R"({"pattern": "p", "values": "E", "longer": true})", R"({"p": "EM"})")
            .find("has 2 entries") != std::string::npos);
}

TEST_CASE("Of several choices the first whose key is there counts") {
  const std::string choice =
      R"([{"pattern": "types", "values": "E"}, {"list": "moe"}, {"every": 4}])";
  CHECK(chosen(choice, R"({"types": "EMMMMMMM", "moe": [1]})") == "10000000");
  CHECK(chosen(choice, R"({"types": null, "moe": [1]})") == "01000000");
  CHECK(chosen(choice) == "00010001");
  CHECK(fault(R"([{"pattern": "types", "values": "E"}, {"list": "moe"}])") ==
        "c.json:1:1: none of these keys is there: types, moe");
}

TEST_CASE("A list or pattern that does not fit the model is refused at its place") {
  CHECK(fault(R"({"list": "moe"})", R"({"moe": [1, 8]})") ==
        "c.json:1:13: /moe/1: layer 8 is not one of the model's 8 layers");
  CHECK(fault(R"({"except": "moe"})", R"({"moe": [-1]})") ==
        "c.json:1:10: /moe/0: layer -1 is not one of the model's 8 layers");
  CHECK(fault(R"({"list": "moe"})", R"({"moe": 3})") ==
        "c.json:1:9: /moe: found an integer, expected an array");
  CHECK(fault(R"({"pattern": "p", "values": "E"})", R"({"p": "EE"})") ==
        "c.json:1:7: /p: has 2 entries, but the model has 8 layers");
  CHECK(fault(R"({"every": "zero"})") ==
        "c.json:1:1: \"zero\" is 0, but layers come every 1 or more");
}

TEST_CASE("A layer choice of a family file is read strictly") {
  CHECK(fault(R"("some")") == "f.json:1:1: found \"some\", expected one of: all");
  CHECK(fault(R"({"form": 3})").find("f.json:1:10: /form: unknown key") == 0);
  CHECK(fault(R"({"first": 3})") == "f.json:1:1: \"first\" says nothing without \"every\"");
  CHECK(fault(R"({"pattern": "p"})") == "f.json:1:1: the key \"values\" is missing");
  CHECK(fault("[]") == "f.json:1:1: found no alternative, expected at least one");
  CHECK(fault("3") == "f.json:1:1: found an integer, expected an object");
}

}  // namespace moelora
