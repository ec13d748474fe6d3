#include <cstdlib>

#include "lib/base/error.h"
#include "lib/io/json.h"

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

// What is read can be written, read again and is the same, laid out or not.
void check(const Json& json) {
  const std::string text = json.dump();
  const Json again = read_back(text);
  if (!(again == json) || again.dump() != text) std::abort();
  if (!(read_back(json.dump(-1)) == json)) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    check(parse_json({reinterpret_cast<const char*>(data), size}, "f"));
  } catch (const Error&) {
  }
  return 0;
}
