#include "lib/io/json.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace moelora;

// Reads what we wrote ourselves: a refusal is a fault of ours.
Json read_back(const std::string& text) {
  try {
    return parse_json(text, "again", {.bytes = text.size(), .depth = 32});
  } catch (const Error&) {
    std::abort();
  }
}

}  // namespace

// What is read can be written, read again and is the same, laid out or not.
void fuzz(std::string_view input) {
  const Json json = parse_json(input, "f");
  const std::string text = json.dump();
  const Json again = read_back(text);
  require(again == json && again.dump() == text);
  require(read_back(json.dump(-1)) == json);
}
