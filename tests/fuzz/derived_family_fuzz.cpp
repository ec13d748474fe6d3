// A checkpoint as adapter_text.h writes it down: config.json, and a line a tensor with its extents.
// Whatever its names and shapes say, the file that is derived is one that the reader of family
// files takes, and the spec made of it lists what the checkpoint has.

#include <sstream>

#include "lib/model/derived_family.h"
#include "lib/model/family.h"
#include "lib/model/model_builder.h"
#include "tests/fuzz/adapter_text.h"
#include "tests/fuzz/fuzz.h"

using namespace moelora;

void fuzz(std::string_view text) {
  const AdapterText parts = split_adapter(text);
  const Json config = parse_json(parts.config, "f");
  std::map<std::string, Shape> tensors;
  std::istringstream lines{std::string(parts.lines)};
  for (std::string line, name; std::getline(lines, line);) {
    std::istringstream words(line);
    Shape shape;
    words >> name;
    for (int64_t extent = 0; words >> extent;) shape.push_back(extent);
    tensors[name] = std::move(shape);
  }
  const std::vector<Family> family = {parse_family(derive_family(tensors, config, "f"), "derived")};
  if (config.find("model_type") == nullptr) return;
  const ModelSpec spec = make_model_spec(config, "f", family);
  for (const LinearSpec& linear : spec.linears)
    require(linear.role == Role::lm_head || tensors.count(linear.hub + ".weight") == 1);
}
