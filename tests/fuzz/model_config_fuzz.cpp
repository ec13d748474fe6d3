#include "lib/model/model_builder.h"
#include "lib/model/model_spec.h"
#include "tests/fuzz/fuzz.h"

void fuzz(std::string_view input) {
  const auto spec = moelora::make_model_spec(moelora::parse_json(input, "f"), "f");
  require(spec.moe_layers.size() == static_cast<size_t>(spec.layers));
  for (const moelora::LinearSpec& linear : spec.linears) require(linear.in > 0 && linear.out > 0);
}
