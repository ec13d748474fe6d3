#pragma once

#include <string>

#include "lib/adapter/convert.h"

namespace moelora {

// conversion.json (schemas/conversion.schema.json): versions, layouts, notes, and per output tensor
// its input tensors, whether every element is an exact copy (or a zero), and its digest. Built as
// text: at 36,864 tensors a document tree would cost more memory than the conversion.
std::string conversion_report(const Conversion& conversion, const WrittenWeights& written);

// The same with other head lines between the versions and the tensors.
std::string report_text(const Json::Members& head, const TensorMap& tensors,
                        const WrittenWeights& written);

}  // namespace moelora
