// What schemas/model_spec.schema.json refuses of a family's "forward" (tests/model/schema_test.py
// reads the same file) is refused before any weight is looked for, and named.

#include <doctest/doctest.h>

#include "lib/io/json.h"
#include "lib/model/forward_facts.h"
#include "tests/forward/cases.h"

namespace moelora::test {
namespace {

// The members of `change` in place of the family's; null for those that are left out.
std::string refusal(const Json& change) {
  BaseModel base = forward_case("qwen3_moe", "base").open();
  ForwardFacts facts = *base.spec.forward;
  for (const auto& [key, value] : change.members())
    if (value.is(Json::Kind::null))
      facts.section.erase(key);
    else
      facts.section.set(key, value);
  base.spec.forward = std::make_shared<const ForwardFacts>(std::move(facts));
  try {
    score_tokens(base, nullptr, {{1, 2}});
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("what the schema refuses of a family's \"forward\" is refused here") {
  CHECK(refusal(Json::object()) == "");
  const std::string path = std::string(MOELORA_SOURCE_DIR) + "/tests/forward/section_faults.json";
  const Json faults = read_json_file(path);
  for (const Json& fault : faults.items()) {
    const std::string found = refusal(*fault.find("change")),
                      says = fault.find("says")->as_string();
    CAPTURE(fault.find("change")->dump(-1));
    CAPTURE(found);
    CHECK(found.find(says) != std::string::npos);
  }
  CHECK(faults.items().size() > 40);
}

}  // namespace moelora::test
