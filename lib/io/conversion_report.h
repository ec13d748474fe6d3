#pragma once

#include <string>
#include <string_view>

#include "lib/io/json.h"
#include "lib/io/tensor_writer.h"

namespace moelora {

inline constexpr std::string_view kConversionName = "conversion.json";

// conversion.json (schemas/conversion.schema.json): the version, the lines of `head`, and per
// output tensor its input tensors, whether every element is an exact copy (or a zero), and its
// digest. Built as text: at 36,864 tensors a document tree would cost more memory than the
// conversion.
std::string report_text(const Json::Members& head, const TensorMap& tensors,
                        const WrittenWeights& written, int threads = 0);

}  // namespace moelora
