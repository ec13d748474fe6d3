#pragma once

#include <optional>
#include <string>

#include "lib/adapter/adapter.h"
#include "lib/engine/fit/step.h"

namespace moelora::fit {

// What a full tensor in an adapter (a saved module, a base_layer weight) changes: its difference
// from the base's own, Frobenius; nullopt where the base's weights are not at hand or have no
// tensor of that name and shape.
std::optional<double> saved_change(const FitContext& context, const std::string& name,
                                   const Tensor& saved);

// "lm_head.weight" of "lm_head.base_layer.weight".
std::string base_weight_name(std::string name);

}  // namespace moelora::fit
