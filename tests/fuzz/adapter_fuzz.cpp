#include <algorithm>
#include <sstream>

#include "lib/adapter/adapter_file.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace moelora;

// "NAME 4 64": an F32 tensor of zeros.
void add_tensor(const std::string& line, TensorMap& tensors) {
  std::istringstream words(line);
  std::string name;
  words >> name;
  Shape shape;
  for (int64_t dim = 0; words >> dim;) shape.push_back(dim);
  if (!name.empty()) tensors[name] = Tensor::zeros(DType::F32, shape);
}

// adapter_config.json up to a line "--", then one tensor a line.
AdapterFiles parse(std::string_view input) {
  const size_t cut = std::min(input.find("\n--\n"), input.size());
  AdapterFiles files;
  files.config = parse_adapter_config(parse_json(input.substr(0, cut), "f"), "f");
  std::istringstream lines{std::string(input.substr(std::min(cut + 4, input.size())))};
  for (std::string line; std::getline(lines, line);) add_tensor(line, files.weights.tensors);
  return files;
}

// What can be read can be written in each layout, or an Error says why not.
void write_all(const Adapter& adapter) {
  for (const Layout* layout : all_layouts()) {
    try {
      layout->write({adapter, nullptr, {}});
    } catch (const Error&) {
    }
  }
}

}  // namespace

void fuzz(std::string_view input) {
  write_all(interpret_adapter(parse(input), std::nullopt, "", {}).adapter);
}
