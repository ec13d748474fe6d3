#include "lib/io/shard_index.h"

#include <doctest/doctest.h>

#include "tests/io/error_text.h"

using namespace moelora;
using Names = std::vector<std::string>;

namespace {

std::string fault(const std::string& text) {
  return error_text([&] { parse_shard_index(text, "i"); });
}

std::string advised(const std::string& text) {
  return error_advised([&] { parse_shard_index(text, "i"); });
}

std::string with_file(const std::string& file) {
  return "{\"weight_map\": {\"t\": \"" + file + "\"}}";
}

}  // namespace

TEST_CASE("an index says which tensor is where, and how much there is") {
  const ShardIndex index = parse_shard_index(
      R"({"metadata": {"total_size": 12, "total_parameters": 3},
          "weight_map": {"z": "m-2.safetensors", "a": "m-1.safetensors", "b": "m-2.safetensors"}})",
      "i");
  CHECK(index.weight_map.size() == 3);
  CHECK(index.weight_map.at("b") == "m-2.safetensors");
  CHECK(index.files() == Names{"m-1.safetensors", "m-2.safetensors"});
  CHECK(index.total_size == uint64_t{12});
  CHECK(index.warnings.empty());
}

TEST_CASE("what an index may leave out or get wrong is a warning") {
  const auto warnings = [](const std::string& text) {
    return parse_shard_index(text, "i").warnings;
  };
  const std::string map = "\"weight_map\": {\"t\": \"m.safetensors\"}";
  CHECK(warnings("{" + map + "}").empty());
  CHECK(warnings("{" + map + ", \"metadata\": {}}").empty());
  CHECK(warnings("{" + map + ", \"metadata\": null}").empty());
  CHECK(warnings("{" + map + ",\n\"metadata\": {\"x\": {\"total_size\": []}}}").empty());
  CHECK(warnings("{" + map + ",\n\"metadata\": {\"total_size\": 1.5e3}}") ==
        Names{"i:2:28: total_size is not a whole number of bytes"});
  CHECK(warnings("{" + map + ",\n\"metadata\": {\"total_size\": \"12\"}}") ==
        Names{"i:2:28: total_size is not a whole number of bytes"});
  CHECK(warnings("{" + map + ", \"extra\": [{\"a\": 1}]}") == Names{"i: unknown key \"extra\""});
}

TEST_CASE("each fault of an index is refused at its line and column") {
  CHECK(fault(with_file("model-00001-of-00002.safetensors")) == "");
  SUBCASE("no object") { CHECK(fault("[]") == "i:1:1: the index is an array, expected an object"); }
  SUBCASE("no weight_map") { CHECK(fault("{}") == "i: names no tensor: it has no weight_map"); }
  SUBCASE("an empty weight_map") {
    CHECK(fault("{\"weight_map\": {}}") == "i: names no tensor: its weight_map is empty");
  }
  SUBCASE("more keys than anyone writes") {
    std::string text = "{";
    for (int i = 0; i < 33; ++i) text += "\"" + std::to_string(i) + "\":0,";
    CHECK(advised(text) ==
          "i:1:216: has more than 32 keys -> An index has two: metadata and weight_map.");
  }
  SUBCASE("more tensors than anyone has") {
    std::string text = "{\"weight_map\":{";
    for (int i = 0; i < 1'000'000; ++i) text += "\"" + std::to_string(i) + "\":\"m.safetensors\",";
    CHECK(advised(text + "\"x\"") ==
          "i:1:" + std::to_string(text.size() + 1) +
              ": names more than 1000000 tensors -> Split the model into folders, each with an "
              "index.");
  }
  SUBCASE("weight_map of another kind") {
    CHECK(fault("{\"weight_map\":\n [\"t\"]}") ==
          "i:2:2: weight_map is an array, expected an object of strings");
    CHECK(fault("{\"weight_map\": null}") ==
          "i:1:16: weight_map is null, expected an object of strings");
  }
  SUBCASE("weight_map twice") {
    CHECK(fault("{\"weight_map\": {\"a\": \"m.safetensors\"}, \"weight\\u005fmap\": {}}") ==
          "i:1:40: the key \"weight_map\" stands twice in this object");
  }
  SUBCASE("a file that is not a string") {
    CHECK(fault("{\"weight_map\": {\"t\": 1}}") ==
          "i:1:22: the file of tensor \"t\" is a number, expected a string");
    CHECK(fault("{\"weight_map\": {\"t\": [\"m.safetensors\"]}}") ==
          "i:1:22: the file of tensor \"t\" is an array, expected a string");
  }
  SUBCASE("a tensor twice") {
    CHECK(fault("{\"weight_map\": {\"t\": \"m.safetensors\",\n\"\\u0074\": \"n.safetensors\"}}") ==
          "i:2:1: the tensor \"t\" stands twice in weight_map");
  }
  SUBCASE("bad JSON") {
    CHECK(fault("{\"weight_map\": {\"t\": \"m.safetensors\"},}") ==
          "i:1:39: unexpected '}', expected string literal");
    CHECK(fault("{\"metadata\": {\"total_size\": NaN}}") == "i:1:29: NaN is not JSON");
    CHECK(fault("{\"metadata\": " + std::string(100, '[')) ==
          "i:1:29: is nested deeper than 16 levels");
  }
}

TEST_CASE("a shard has a bare name, by the rules of every system") {
  const std::string elsewhere = " of tensor \"t\" leads to another folder";
  CHECK(fault(with_file("..safetensors")) == "");
  CHECK(fault(with_file("../m.safetensors")) ==
        "i:1:22: the file \"../m.safetensors\"" + elsewhere);
  CHECK(fault(with_file("/etc/m.safetensors")) ==
        "i:1:22: the file \"/etc/m.safetensors\"" + elsewhere);
  CHECK(fault(with_file("a/m.safetensors")) == "i:1:22: the file \"a/m.safetensors\"" + elsewhere);
  CHECK(fault(with_file("..\\\\m.safetensors")) ==
        "i:1:22: the file \"..\\m.safetensors\"" + elsewhere);
  CHECK(fault(with_file("\\\\\\\\host\\\\m.safetensors")) ==
        "i:1:22: the file \"\\\\host\\m.safetensors\"" + elsewhere);
  CHECK(fault(with_file("C:m.safetensors")) ==
        "i:1:22: the file \"C:m.safetensors\" of tensor \"t\" names a drive");
  CHECK(fault(with_file("m\\u0000.safetensors")) ==
        "i:1:22: the file \"m\\x00.safetensors\" of tensor \"t\" holds a control character");
  CHECK(fault(with_file("")) == "i:1:22: the file \"\" of tensor \"t\" is empty");
  CHECK(fault(with_file("m.bin")) ==
        "i:1:22: the file \"m.bin\" of tensor \"t\" is not a .safetensors file");
  CHECK(fault(with_file("..")) ==
        "i:1:22: the file \"..\" of tensor \"t\" is not a .safetensors file");
  CHECK(fault(with_file(".safetensors")) ==
        "i:1:22: the file \".safetensors\" of tensor \"t\" is not a .safetensors file");
  CHECK(fault(with_file("m.safetensors.")) ==
        "i:1:22: the file \"m.safetensors.\" of tensor \"t\" is not a .safetensors file");
}

TEST_CASE("numbered shards show which of them are missing") {
  CHECK(missing_numbers({"m-1-of-2.safetensors", "m-2-of-2.safetensors"}).empty());
  CHECK(missing_numbers({"model.safetensors", "m-of-.safetensors", "-of-3.safetensors"}).empty());
  CHECK(missing_numbers({"m-00001-of-00003.safetensors", "m-00003-of-00003.safetensors"}) ==
        Names{"m-00002-of-00003.safetensors"});
  CHECK(missing_numbers({"a-1-of-1.safetensors", "b-1-of-2.safetensors"}) ==
        Names{"b-2-of-2.safetensors"});
  CHECK(missing_numbers({"m-000001-of-999999.safetensors"}).size() == 5);
  CHECK(missing_numbers({"m-00000000000001-of-99999999999999.safetensors"}).empty());
}
