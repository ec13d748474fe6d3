#include "lib/io/json.h"
#include "lib/io/json_scan.h"
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

// The scanner for large texts takes what the library takes; keys that stand twice are not its
// concern.
struct Ignore final : JsonHandler {
  void on(JsonToken&) override {}
  Error error_at(uint64_t, std::string what, std::string) const override { return {"", what}; }
};

bool scans(std::string_view text) {
  try {
    Ignore ignore;
    scan_json(text, JsonLimits().depth, ignore);
    return true;
  } catch (const Error&) {
    return false;
  }
}

Json parse(std::string_view text) {
  try {
    return parse_json(text, "f");
  } catch (const Error& error) {
    require(!scans(text) || error.text().ends_with("stands twice in this object") ||
            error.text().find("bytes of JSON") != std::string::npos);
    throw;
  }
}

}  // namespace

// What is read can be written, read again and is the same, laid out or not.
void fuzz(std::string_view input) {
  const Json json = parse(input);
  require(scans(input));
  const std::string text = json.dump();
  const Json again = read_back(text);
  require(again == json && again.dump() == text);
  require(read_back(json.dump(-1)) == json);
}
