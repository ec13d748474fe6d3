#pragma once

#include <string>
#include <vector>

#include "lib/io/json.h"

namespace moelora {

// One place where a JSON value is not what its schema says.
struct SchemaFault {
  std::string key;      // the top-level key, "" for the value itself
  std::string path;     // "rank_pattern.q_proj", "target_modules[3]"
  std::string message;  // "is a string, expected an integer", "is missing"
  const Json* at;       // where it stands; the enclosing object for what is missing
};

// Checks `value` against the part of JSON Schema that schemas/adapter_config.schema.json uses:
// type, const, enum, minimum, required, properties, additionalProperties (a schema), items,
// minItems, maxItems, oneOf (taken as "any of") and $ref into $defs. Other keywords are ignored.
std::vector<SchemaFault> check_schema(const Json& value, const Json& schema);

// schemas/adapter_config.schema.json.
const Json& adapter_config_schema();

}  // namespace moelora
