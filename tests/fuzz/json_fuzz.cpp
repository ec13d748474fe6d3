#include <nlohmann/json.hpp>

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

// nlohmann/json takes a NUL byte for the end, skips a byte order mark and nests without a limit.
bool is_json(std::string_view text) {
  return text.find('\0') == std::string_view::npos && !text.starts_with("\xEF\xBB\xBF") &&
         nlohmann::json::accept(text);
}

Json parse(std::string_view text) {
  try {
    return parse_json(text, "f");
  } catch (const Error& error) {
    require(!is_json(text) || error.text().ends_with("stands twice in this object") ||
            error.text().find("bytes of JSON") != std::string::npos ||
            error.text().starts_with("is nested deeper"));
    throw;
  }
}

}  // namespace

// What is read can be written, read again and is the same, laid out or not.
void fuzz(std::string_view input) {
  const Json json = parse(input);
  require(is_json(input));
  const std::string text = json.dump();
  const Json again = read_back(text);
  require(again == json && again.dump() == text);
  require(read_back(json.dump(-1)) == json);
}
