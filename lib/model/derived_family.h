#pragma once

#include <map>
#include <string>

#include "lib/base/tensor.h"
#include "lib/io/json.h"

namespace moelora {

// What a checkpoint's own names and shapes say of a model whose family no file describes: a family
// file as schemas/models has them, sizes as numbers, for review and --model-spec. `tensors`: every
// name and shape of the checkpoint, in the hub's spelling; `config`: its config.json, of which the
// model_type, the activation and the number of experts a token chooses are taken.
//
// Modules, layers, the experts' storage, count, axis and widths, shared experts and the router
// follow from names and shapes. What does not is left unknown: the order of fused gate and up rows
// ("unknown"), how transformers 5 holds numbered experts (as the file does), servers' classes.
//
// Throws Error, and says what is missing, where there is no embedding, no numbered layer, or where
// shapes decide nothing (an expert width that equals the hidden size, packed experts).
Json derive_family(const std::map<std::string, Shape>& tensors, const Json& config,
                   const std::string& where);

}  // namespace moelora
