#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "lib/engine/sglang/features.h"
#include "lib/engine/sglang/model/model_class.h"

namespace moelora::sglang {

// Input and output width of a buffer's module, or what get_hidden_dim() raises for it.
struct HiddenDim {
  int64_t in = 0, out = 0;
  std::string error_type, error_text;  // "" when there are dims

  bool ok() const { return error_type.empty(); }
};

// SGLang's get_default_hidden_dim() (lora/utils.py): from the config, not from the layers, and as
// if all layers were alike. For a class that has its own the widths are those of its layers.
HiddenDim hidden_dim(const ModelClass& model, const Features& features, std::string_view module,
                     int layer);

// How many factors a buffer stacks: 3 for qkv_proj.
int64_t stacked_multiply(const ModelClass& model, std::string_view module);

// The parts of a buffer's B, before any split over ranks: {q, k, v}, {gate, up}, else all in one.
std::vector<int64_t> part_rows(const ModelClass& model, std::string_view module, int64_t out);

}  // namespace moelora::sglang
