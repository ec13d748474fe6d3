#include "lib/base/error.h"

#include <doctest/doctest.h>

#include <array>

#include "lib/base/nearest.h"

namespace moelora {
namespace {

// A tool that has --for where others have --engine, and no --roles.
std::string convert_flag(Option option) {
  if (option == Option::roles) return "";
  return option == Option::engine ? "--for" : default_flag(option);
}

constexpr std::array<std::string_view, 3> kLayouts = {"stacked", "peft-linear", "shared-outer"};

}  // namespace

TEST_CASE("A location is data, and reads as people write it") {
  CHECK(in_file("a.json").text() == "a.json");
  CHECK(Location{"a.json", 3, 5, {}, {}}.text() == "a.json:3:5");
  CHECK(Location{"a.csv", 3, 0, {}, {}}.text() == "a.csv:3");
  CHECK(in_file("a.safetensors", "lm_head.lora_A.weight").text() ==
        "a.safetensors: lm_head.lora_A.weight");
  CHECK(at_option(Option::max_shard_size, "5X").text() == "--max-shard-size 5X");
  CHECK(Location().text().empty());
  const Error error(Location{"a.json", 3, 5, {}, {}}, "is 3");
  CHECK(error.location().line == 3);
  CHECK(std::string(error.what()) == "a.json:3:5: is 3");
  CHECK(std::string(Error("", "out of memory").what()) == "out of memory");
  CHECK(Error("lm_head", "is empty").where() == "lm_head");
}

TEST_CASE("A message and its hint name options as the caller spells them") {
  const Error error(at_option(Option::engine, "sglang"), "needs a base model",
                    {"name it with ", Option::base, ", or leave ", Option::engine, " out"});
  CHECK(error.message() == "--engine sglang: needs a base model");
  CHECK(error.message(convert_flag) == "--for sglang: needs a base model");
  CHECK(error.hint() == "name it with --base, or leave --engine out");
  CHECK(error.advice().text(convert_flag) == "name it with --base, or leave --for out");
}

TEST_CASE("A hint with an option that the caller does not have is not given") {
  CHECK(Hint{"say ", Option::roles, " swapped"}.text(convert_flag).empty());
  CHECK(Hint("say it again").text(convert_flag) == "say it again");
  CHECK((Hint{"say ", Option::base, ", or "} + Hint{Option::b_order, " rank-major"}).text() ==
        "say --base, or --b-order rank-major");
}

TEST_CASE("Every option has a name of its own") {
  for (int i = 0; i <= static_cast<int>(Option::to); ++i)
    for (int j = 0; j < i; ++j)
      CHECK(option_name(static_cast<Option>(i)) != option_name(static_cast<Option>(j)));
  CHECK(option_name(Option::alpha) == "alpha");
  CHECK(option_name(Option::force) == "force");
  CHECK(option_name(Option::model_spec) == "model-spec");
  CHECK(option_name(Option::to) == "to");
}

TEST_CASE("An unknown word is answered with the nearest known one") {
  const Error near = unknown_word(at_option(Option::to), "layout", "stackd", kLayouts);
  CHECK(std::string(near.what()) == "--to: unknown layout 'stackd' (did you mean 'stacked'?)");
  CHECK(near.hint() == "layouts: stacked, peft-linear, shared-outer");
  const Error far = unknown_word({}, "layout", "gguf", kLayouts);
  CHECK(std::string(far.what()) == "unknown layout 'gguf'");
  const std::vector<std::string_view> many(40, "abc");
  CHECK(unknown_word({}, "word", "x", many, "see the list").hint() == "see the list");
}

}  // namespace moelora
