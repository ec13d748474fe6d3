#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "lib/base/error.h"

namespace moelora {

// One token of a JSON text. A string or key is unescaped; a number is the text it was written
// with, so that its reader decides what fits.
struct JsonToken {
  enum class Kind : uint8_t {
    null,
    boolean,
    number,
    string,
    key,
    begin_array,
    end_array,
    begin_object,
    end_object
  };
  Kind kind = Kind::null;
  bool boolean = false;
  std::string text;     // of a string, key or number; may be moved from
  uint64_t offset = 0;  // of the token's first byte
};

std::string_view kind_name(JsonToken::Kind kind);  // "a number", "an object" ... for messages

// Receives the tokens of scan_json.
class JsonHandler {
 public:
  virtual ~JsonHandler() = default;
  virtual void on(JsonToken& token) = 0;
  // The handler knows what the user calls the text and a place in it.
  virtual Error error_at(uint64_t offset, std::string what, std::string hint = {}) const = 0;
};

// Strict JSON (RFC 8259) as a stream of tokens, in memory bounded by its longest string: for what
// is large or hostile (headers of safetensors files, shard indexes), and to say where and how a
// text fails that is not JSON. A byte order mark, invalid UTF-8, NaN and Infinity, a nesting deeper
// than `max_depth`, a number beyond the range of double and text after the value are each thrown
// as an error_at() of their own. Duplicate keys are the handler's to find.
void scan_json(std::string_view text, int max_depth, JsonHandler& handler);

}  // namespace moelora
