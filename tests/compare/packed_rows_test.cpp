// The packed check on experts that are rows of one matrix (DBRX): it reads PEFT's pairs by itself,
// and what lands in another expert's rows, or on the other side, is found.

#include <doctest/doctest.h>

#include "lib/base/error.h"
#include "tests/compare/made_pair.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const BaseModel& dbrx() {
  static const BaseModel base = made_base("dbrx");
  return base;
}

Held source() {
  MadeOptions made;
  made.shared_outer = true;
  return made_experts(dbrx().spec, made);
}

bool sound(const Held& packed, const Held& from) {
  const packed::Report report = checked(packed, from, &dbrx().spec, false);
  return report.faults.empty() && report.different == 0 && report.factors > 0;
}

}  // namespace

TEST_CASE("pairs on rows of one matrix are sound in either direction") {
  const Held numbered = source();
  const Held rows = converted(numbered, dbrx(), "peft-params");
  CHECK(rows.tensors.size() == 2 * 2 * 3);
  CHECK(sound(rows, numbered));
  for (const char* layout : {"peft-linear", "stacked", "shared-outer", "peft-params"}) {
    CAPTURE(layout);
    CHECK(sound(converted(rows, dbrx(), layout), rows));
  }
}

TEST_CASE(
    "a value of one expert's rows, two experts' rows in turn and parameters in turn are found") {
  const Held numbered = source();
  const Held rows = converted(numbered, dbrx(), "peft-params");
  const std::string layer = "blocks.1.";
  for (const char* module : {".mlp.lora", ".mlp.base_layer.lora", ".base_layer.base_layer.lora"})
    for (const char* side : {"lora_A", "lora_B"}) {
      CAPTURE(module);
      CAPTURE(side);
      Held one = rows;
      CHECK(edit(one, {layer, module, side},
                 [](Values& values, const Shape&) { values[values.size() / 2] += 1; }) == 1);
      CHECK_FALSE(sound(one, numbered));
    }
  Held turned = rows;
  CHECK(edit(turned, {layer, ".mlp.lora_B"}, [](Values& values, const Shape& shape) {
          const auto run = static_cast<std::ptrdiff_t>(26 * shape[1]);  // of one expert
          std::swap_ranges(values.begin(), values.begin() + run, values.begin() + run);
        }) == 1);
  CHECK_FALSE(sound(turned, numbered));
  Held swapped = rows;
  const std::string stem = "base_model.model.transformer.blocks.0.ffn.experts.mlp.";
  std::swap(swapped.tensors.at(stem + "lora_B.weight"),
            swapped.tensors.at(stem + "base_layer.lora_B.weight"));
  CHECK_FALSE(sound(swapped, numbered));
}

TEST_CASE("pairs that are no rows of the base's matrices are refused") {
  const Held numbered = source();
  Held rows = converted(numbered, dbrx(), "peft-params");
  for (auto& [name, tensor] : rows.tensors)
    if (name.find("mlp.lora_B") != std::string::npos)
      tensor = Tensor::zeros(DType::F32, {6 * 26, tensor.dim(1)});
  CHECK_THROWS_AS(checked(rows, numbered, &dbrx().spec), Error);
}
