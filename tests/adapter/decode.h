#pragma once

#include <map>
#include <string>
#include <tuple>
#include <vector>

namespace moelora::test {

// delta W [out, in] in double, row-major.
struct Matrix {
  int64_t rows = 0, cols = 0;
  std::vector<double> data;

  double& at(int64_t r, int64_t c) { return data[static_cast<size_t>(r * cols + c)]; }
  double at(int64_t r, int64_t c) const { return data[static_cast<size_t>(r * cols + c)]; }
};

// What the test knows of a model and of the file it decodes, none of it from lib/adapter's readers.
struct DecodeOptions {
  int64_t experts = 0, intermediate = 0;
  std::string layout;                          // "peft-linear", ...
  bool interleaved = false;                    // rows of gate_up in PEFT's parameters (gpt-oss)
  bool expert_major = false, swapped = false;  // of peft-params
  bool base_layer_is_down = false;             // PEFT on parametrized experts
  // lora_alpha / r of the config for all, as servers have it: no patterns, no rsLoRA.
  bool server_scale = false;
  std::string lone = "gate_up_proj";  // what an unnested pair without a sibling is
};

// Every module's delta by name: "model.layers.0.self_attn.q_proj", and for routed experts
// "layer 0 expert 3 gate|up|down". Plain loops over index formulas, written from the formats' own
// documentation and deliberately sharing nothing with lib/adapter but the config's scale rule.
std::map<std::string, Matrix> decode_deltas(const std::string& folder,
                                            const DecodeOptions& options);

// ||a - b|| / ||b|| over all elements; infinity when shapes differ.
double relative_error(const Matrix& a, const Matrix& b);

}  // namespace moelora::test
