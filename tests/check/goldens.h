#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/check/validate.h"

namespace moelora::test {

// The golden adapter FAMILY/NAME of tests/data, judged for these engines, with the family's base
// model or without.
struct GoldenJudgement {
  Deployment deployment;
  Judgement judgement;
};
GoldenJudgement judge_golden(const std::string& family, const std::string& name, bool with_base,
                             const std::vector<std::string>& engines = {});

// A specimen after a change, judged for an engine ("" for none).
Judgement judge_specimen(std::string_view id, void (*change)(Specimen&),
                         std::string_view engine = "");

// The findings of one rule.
std::vector<Finding> found_by(const Judgement& judgement, std::string_view rule);

// The only one of a rule; a failed test when there are none or several.
Finding only(const Judgement& judgement, std::string_view rule);

Severity worst(const std::vector<Finding>& findings);  // information for none

// Every element `value`.
Tensor filled(const Shape& shape, float value, DType dtype = DType::F32);

// "FMT006 error layers.0...: message", a line each, for failure messages.
std::string told(const Judgement& judgement);

// Names of the golden adapters of a family.
std::vector<std::string> golden_adapters(const std::string& family);

}  // namespace moelora::test
