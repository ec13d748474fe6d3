#pragma once

#include <array>
#include <string>

#include "lib/engine/sglang/features.h"
#include "lib/engine/sglang/load/layer_weights.h"
#include "lib/engine/sglang/model/model_class.h"
#include "lib/engine/sglang/pool/pool.h"

namespace moelora::sglang {

struct Span {
  int64_t first = 0, count = 0;
};

// A staged tensor as a rank cuts it (slice_lora_a_weights and its like in lora/layers.py): runs of
// its rows, one below the other, and some columns. Python's slices never fail: what a run asks for
// beyond the tensor is not there, and shows as a shape that is too small.
struct Sliced {
  const Staged* tensor = nullptr;
  std::array<Span, 4> runs;  // q, k, v and z of linear attention
  int run_count = 1;
  Span columns;
  bool interleaved = false;            // row i of run j becomes row 2i + j
  Shape shape;                         // of the result
  std::string error_type, error_text;  // what slicing raises; "" for nothing
};

Sliced whole(const Staged& staged);

// A dense module's factors. `parts` are the rows of q, k, v or gate, up in the whole model.
Sliced slice_dense_a(const ClassModule& module, const Staged& staged, const Rank& rank);
Sliced slice_dense_b(const ClassModule& module, const HfConfig& config, const Staged& staged,
                     const Rank& rank);

// A routed-expert factor, of one expert or of all.
Sliced slice_moe_a(const ModelClass& model, std::string_view buffer, const Staged& staged,
                   const Rank& rank);
Sliced slice_moe_b(const ModelClass& model, const Features& features, std::string_view buffer,
                   const Staged& staged, const Rank& rank);

// Rows of the rank's part of q, k, v (or gate, up; or all) and where they begin in the whole part.
std::vector<Span> shares_of(const ClassModule& module, const HfConfig& config, const Rank& rank);

}  // namespace moelora::sglang
