#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/check/run_rules.h"
#include "lib/check/specimen.h"

namespace moelora::test {

// The golden adapter FAMILY/NAME of tests/data, checked for these engines, with the family's base
// model or without.
struct GoldenResults {
  Deployment deployment;
  RuleResults results;
};
GoldenResults check_golden(const std::string& family, const std::string& name, bool with_base,
                           const std::vector<std::string>& engines = {});

// A specimen after a change, checked for an engine ("" for none).
RuleResults check_specimen(std::string_view id, void (*change)(Specimen&),
                           std::string_view engine = "");

// The findings of one rule.
std::vector<Finding> found_by(const RuleResults& results, std::string_view rule);

// The only one of a rule; a failed test when there are none or several.
Finding only(const RuleResults& results, std::string_view rule);

Severity worst(const std::vector<Finding>& findings);  // information for none

// Every element `value`.
Tensor filled(const Shape& shape, float value, DType dtype = DType::F32);

// "FMT006 error layers.0...: message", a line each, for failure messages.
std::string findings_text(const RuleResults& results);

// Names of the golden adapters of a family.
std::vector<std::string> golden_adapters(const std::string& family);

}  // namespace moelora::test
