#include "tests/model/base_folder.h"

#include <vector>

#include "lib/io/json.h"
#include "lib/io/tensor_writer.h"
#include "lib/io/weights.h"
#include "lib/model/model_builder.h"

namespace moelora {

TensorMap tensors_of(const std::string& folder) { return open_weights(folder, {"model"}).tensors; }

std::string difference(const TensorMap& a, const TensorMap& b) {
  for (const auto& [name, tensor] : a) {
    const auto found = b.find(name);
    if (found == b.end()) return name + " is missing";
    if (found->second.dtype() != tensor.dtype() || found->second.shape() != tensor.shape())
      return name + " is " + to_string(found->second.shape());
    if (found->second.read() != tensor.read()) return name + " differs";
  }
  for (const auto& [name, tensor] : b) {
    if (a.count(name) == 0) return name + " is extra";
  }
  return "";
}

void write_model(const std::string& folder, const std::string& config_path, Form form,
                 const TensorMap& extra) {
  const Json config = read_json_file(config_path);
  TensorMap tensors = extra;
  float next = 0;
  for (const auto& [name, shape] : make_model_spec(config, config_path).tensors(form)) {
    std::vector<float> values(static_cast<size_t>(Tensor::zeros(DType::F32, shape).elements()));
    for (float& value : values) value = next++;
    tensors[name] = Tensor::of_f32(shape, values);
  }
  OutputFolder out(folder, {}, {false, false});
  write_weights(out, "model", tensors, {});
  out.write_text("tokenizer.json", "{}");
  out.commit("config.json", config.dump());
}

}  // namespace moelora
