// Adapters that PEFT trained on 21 more families, dense bases among them, in every layout that can
// hold them: the deltas are PEFT's fp64 answers.

#include <doctest/doctest.h>

#include "lib/adapter/convert.h"
#include "lib/base/error.h"
#include "lib/model/base_model.h"
#include "tests/adapter/goldens.h"

using namespace moelora;
using namespace moelora::test;

namespace {

void convert(const Golden& golden, std::string_view layout, const std::string& out) {
  PlanOptions options;
  options.to = layout;
  options.load.base = golden.base();
  WriteFolderOptions write;
  write.output.durable = false;
  write_conversion(plan_conversion(golden.folder(), options), out, write);
}

bool is_without_experts(const Golden& golden, const ModelSpec& spec) {
  PlanOptions options;
  options.to = "peft-linear";
  options.load.base = golden.base();
  return spec.experts == 0 || plan_conversion(golden.folder(), options).adapter.experts.empty();
}

}  // namespace

TEST_CASE("adapters of more families mean in every layout what PEFT computed in fp64") {
  int conversions = 0, dense = 0;
  for (const Golden& golden : later_goldens()) {
    const ModelSpec spec = open_base(golden.base()).spec;
    const auto expected = golden_answer(golden, spec);
    CAPTURE(golden.family);
    CAPTURE(golden.adapter);
    REQUIRE(!expected.empty());
    const bool no_experts = is_without_experts(golden, spec);
    for (const Layout* layout : all_layouts()) {
      // One outer factor for all experts is not what these were trained with.
      if (layout->id == "shared-outer" && !no_experts) continue;
      CAPTURE(layout->id);
      const TempFolder temp;
      convert(golden, layout->id, temp.path + "/out");
      check_deltas(temp.path + "/out", spec, decode_options(spec, std::string(layout->id), false),
                   expected);
      ++conversions;
      dense += no_experts ? 1 : 0;
    }
  }
  MESSAGE(conversions << " conversions, " << dense << " of adapters without experts");
  CHECK(conversions >= 350);
  CHECK(dense >= 100);
}
