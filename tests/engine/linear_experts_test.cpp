// What PEFT does with an adapter of experts that are Linears of their own: all of it is loaded, by
// every release, beside transformers 4 and 5.
#include <doctest/doctest.h>

#include "lib/adapter/init.h"
#include "lib/engine/engine.h"
#include "lib/model/base_model.h"
#include "tests/engine/served_from_folder.h"
#include "tests/io/temp_folder.h"
#include "tests/model/catalogue.h"

using namespace moelora;
using namespace moelora::test;

namespace {

ServerPlan plan_of(const std::string& family, const std::string& version) {
  const TempFolder temp;
  InitOptions init;
  init.base = later_entry(family).config;
  init.rank = 2;
  init.targets = {"attention", "mlp", "experts"};
  init.to = "peft-linear";
  init.random_b = true;
  WriteFolderOptions write;
  write.output.durable = false;
  write_conversion(make_adapter(init), temp.path("in"), write);
  const std::vector<ServedAdapter> adapters{served_from_folder(temp.path("in"))};
  const BaseModel model = open_base(init.base);
  return engines::peft.plan(
      {adapters, model.spec, model.config, {}, *EngineVersion::parse(version)});
}

}  // namespace

TEST_CASE("PEFT loads every factor of experts that are Linears of their own") {
  for (const char* family : {"nllb_moe", "switch_transformers"})
    for (const char* version : {"0.17", "0.19.0", "0.20"}) {
      CAPTURE(family);
      CAPTURE(version);
      const ServerPlan plan = plan_of(family, version);
      CHECK(plan.not_known == "");
      REQUIRE(plan.adapters.size() == 1);
      CHECK(plan.adapters[0].first_refusal() == nullptr);
      // 7 experts of two Linears in each of two layers, two dense layers of two, six attentions.
      CHECK(plan.adapters[0].fates.size() == 2 * (7 * 2 * 2 + 2 * 2 + 6 * 4));
      for (const TensorFate& fate : plan.adapters[0].fates) {
        const std::string& tensor = fate.tensor;
        CAPTURE(tensor);
        CHECK(fate.fate == Fate::used);
      }
    }
}
