#pragma once

#include <set>
#include <string>
#include <string_view>

#include "lib/base/tensor.h"
#include "lib/model/model_spec.h"

namespace moelora {

// "layers.3.self_attn.q_proj", "embed_tokens", "lm_head": what is left of a text model's prefix,
// whether it stands alone or in a multimodal wrapper; "" for a module that is under none.
std::string text_tail(std::string_view module);

// Whether a path leads into a part beside the text model: a vision or audio tower, its projector,
// or the prediction layers.
bool is_in_tower(std::string_view module);

// The same without the prediction layers: what `--drop vision` takes out.
bool is_in_vision(std::string_view module);

// Tensors that are a module's second spelling under another such prefix, with the same bytes and
// shape (some trainers save both, for either class): those that the base does not know, or without
// one (`spec` null) all but the first.
std::set<std::string> text_twins(const TensorMap& tensors, const ModelSpec* spec);

}  // namespace moelora
