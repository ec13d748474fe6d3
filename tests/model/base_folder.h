#pragma once

#include <string>

#include "lib/base/tensor.h"
#include "lib/model/model_spec.h"

// Model folders with weights, for tests that convert them.
namespace moelora {

TensorMap tensors_of(const std::string& folder);

// "" when both have the same names, shapes, types and bytes.
std::string difference(const TensorMap& a, const TensorMap& b);

// A checkpoint of the model that a config.json describes: that, tokenizer.json, and
// random-looking weights in one form, those of `extra` too.
void write_model(const std::string& folder, const std::string& config_path, Form form,
                 const TensorMap& extra = {});

}  // namespace moelora
