// An adapter of an encoder and a decoder whose experts are Linears: what it covers, by the numbers
// that the names have.
#include <doctest/doctest.h>

#include "lib/adapter/init.h"
#include "lib/check/run_rules.h"
#include "lib/model/base_model.h"
#include "tests/check/goldens.h"
#include "tests/io/temp_folder.h"
#include "tests/model/catalogue.h"

using namespace moelora;
using namespace moelora::test;

namespace {

RuleResults checked(const std::string& family, const std::vector<std::string>& targets) {
  const TempFolder temp;
  InitOptions init;
  init.base = later_entry(family).config;
  init.rank = 2;
  init.targets = targets;
  init.to = "peft-linear";
  init.random_b = true;
  WriteFolderOptions write;
  write.output.durable = false;
  write_conversion(make_adapter(init), temp.path("in"), write);
  Deployment deployment;
  deployment.base = open_base(init.base);
  Subject subject = open_subject(temp.path("in"));
  interpret(subject, deployment.base, {});
  deployment.adapters.push_back(std::move(subject));
  return run_rules(deployment);
}

}  // namespace

TEST_CASE("coverage tells the encoder's layers from the decoder's, and experts from a dense MLP") {
  CHECK(only(checked("nllb_moe", {"mlp", "experts"}), "MOD007").message ==
        "adapts dense MLP (fc1, fc2) in layers model.decoder.layers.0 and model.encoder.layers.0; "
        "routed experts (fc1, fc2) in layers model.decoder.layers.1 and model.encoder.layers.1");
  CHECK(only(checked("switch_transformers", {"experts"}), "MOD007").message ==
        "adapts routed experts (wi, wo) in layers decoder.block.1 and encoder.block.1");
  for (const char* family : {"nllb_moe", "switch_transformers"})
    CHECK(worst(checked(family, {"attention", "mlp", "experts"}).findings) ==
          Severity::information);
}
