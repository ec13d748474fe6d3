#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/adapter/dialect.h"
#include "lib/adapter/foreign/dialect_tools.h"
#include "tests/adapter/made_adapter.h"
#include "tests/io/error_text.h"

namespace moelora::test {

// What a dialect makes of tensors. `spec`: null for no base model.
inline Translation translated(std::string_view dialect, const TensorMap& tensors,
                              const ModelSpec* spec = nullptr,
                              const std::string& config = R"({"r": 2, "lora_alpha": 4})") {
  const std::string where = "adapter_config.json";
  const Json json = parse_json(config, where);
  Translation out;
  find_dialect(dialect)->read({tensors, json, where, spec}, out);
  return out;
}

inline std::string refused(std::string_view dialect, const TensorMap& tensors,
                           const ModelSpec* spec = nullptr,
                           const std::string& config = R"({"r": 2, "lora_alpha": 4})") {
  return error_text([&] { translated(dialect, tensors, spec, config); });
}

inline std::vector<std::string> names_of(const TensorMap& tensors) {
  std::vector<std::string> out;
  for (const auto& entry : tensors) out.push_back(entry.first);
  return out;
}

// Rows of a matrix, or of the last two dims of a stack, in another order.
inline std::vector<float> rows_of(const Tensor& matrix, const std::vector<int64_t>& order) {
  std::vector<Tensor> rows;
  for (const int64_t row : order) rows.push_back(matrix.slice(0, row, 1));
  return floats(Tensor::concat(0, rows));
}

}  // namespace moelora::test
