// Adapters as trainers other than PEFT write them, made by those trainers' own code or by formulas
// from it (tests/data/dialect_*.tar.xz), in every layout that can hold them: the deltas are those
// of the real peer in fp64.

#include <doctest/doctest.h>

#include <set>

#include "lib/adapter/convert.h"
#include "lib/adapter/dialect.h"
#include "lib/model/base_model.h"
#include "tests/adapter/goldens.h"

using namespace moelora;
using namespace moelora::test;

namespace {

void convert(const DialectCase& from, std::string_view layout, const std::string& out) {
  PlanOptions options;
  options.to = layout;
  options.load.base = from.base;
  WriteFolderOptions write;
  write.output.durable = false;
  write_conversion(plan_conversion(from.adapter, options), out, write);
}

}  // namespace

TEST_CASE("what other trainers wrote means in every layout what they computed") {
  int conversions = 0;
  std::set<std::string> seen;
  for (const DialectCase& from : dialect_cases()) {
    CAPTURE(from.adapter);
    const ModelSpec spec = open_base(from.base).spec;
    const auto expected = answers_of(from.answer, spec);
    REQUIRE(!expected.empty());
    LoadOptions options;
    options.base = from.base;
    const LoadedAdapter loaded = load_adapter(from.adapter, options);
    REQUIRE(loaded.files.dialect != nullptr);
    CHECK(loaded.files.dialect->id == from.dialect);
    seen.insert(from.dialect);
    for (const Layout* layout : all_layouts()) {
      if (layout->shared_outer && !from.shared_outer) continue;
      CAPTURE(layout->id);
      const TempFolder temp;
      convert(from, layout->id, temp.path + "/out");
      check_deltas(temp.path + "/out", spec, decode_options(spec, std::string(layout->id), false),
                   expected);
      ++conversions;
    }
  }
  MESSAGE(conversions << " conversions");
  for (const Dialect* dialect : all_dialects())
    CHECK_MESSAGE((dialect->read == nullptr) == (seen.count(std::string(dialect->id)) == 0),
                  dialect->id << " is read and has no golden, or the reverse");
}
