#include "lib/io/weights.h"

namespace moelora {

Weights open_weights(const std::string& path, const std::vector<std::string>&) {
  Weights out;
  out.files.push_back(open_safetensors(path));
  out.tensors = out.files.back().tensors;
  return out;
}

}  // namespace moelora
