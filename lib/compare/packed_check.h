#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/base/tensor.h"
#include "lib/compare/bits/diagnosis.h"
#include "lib/compare/bits/stacked_pairs.h"
#include "lib/io/json.h"
#include "lib/model/model_spec.h"

namespace moelora::packed {

// Whether a packed adapter says what the adapter it was made from says, whatever layouts both are
// in. Nothing here comes from lib/adapter (tests/layering_test.cmake): names, configs, index maps,
// casts and scales are read and computed a second time, so that a mistake of the converter is not
// made again by its check.
//
// Three layers, each only for the pairs that the one before leaves open:
//   L0  every packed element is derived from the source anew and compared by its bits: index maps,
//       casts (to nearest, ties to even), an s folded into B (folded() of rounding.h), broadcasts
//       of what experts share, zeros (+0) in ranks and experts that hold nothing. No tolerance.
//   L1  other factors may have the same product: a Gram distance below 1e-7 (products.h).
//   L2  how far the delta is off: ||dW' - dW|| / ||dW|| of the worst pair.
// What is left is looked into and named (diagnosis.h). Memory stays bounded; all threads work.

struct AdapterInput {
  const TensorMap& tensors;  // of open files; what is computed is evaluated in memory
  const Json& config;        // adapter_config.json
  std::string where;         // for messages
  Reading reading = {};      // of stacked pairs, where its markers do not say
};

struct CheckOptions {
  const ModelSpec* spec = nullptr;  // null: a base model is not known
  int threads = 0;
  bool products = true;  // L1
  // As packers fit an adapter to a server: a scale may be folded into B, and a frozen weight of the
  // base saved beside factors may be left out.
  bool fitted = true;
  double rounding = 1e-2;     // relative error of a delta up to which only rounding is to blame
  uint64_t window = 4 << 20;  // bytes that a thread reads at once, of both adapters together
};

struct Report {
  int64_t factors = 0;        // of the packed adapter: one A or B of one expert, gate_up as one
  int64_t same_bits = 0;      // pairs found by L0 to be the source's
  int64_t folded = 0;         // of these, with the scale folded into B
  int64_t cast = 0;           // of these, with elements of another type
  int64_t same_product = 0;   // pairs found by L1: within 1e-7 of the norm
  int64_t different = 0;      // pairs that neither explains
  std::vector<Fault> faults;  // empty: the packed adapter says what its source says

  bool sound() const { return faults.empty(); }
};

// Throws Error where an adapter cannot be read, or may mean two things.
Report check_packed(const AdapterInput& packed, const AdapterInput& source,
                    const CheckOptions& options);

}  // namespace moelora::packed
