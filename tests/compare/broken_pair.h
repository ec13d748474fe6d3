#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lib/model/base_model.h"
#include "tests/compare/made_pair.h"

namespace moelora::test {

// Sound pairs of a source and what lib/adapter packed from it, and ways to break the packed one.

struct BrokenPair {
  BaseModel base;
  Held source, packed;
};

// Sound as yet; a failed test where the check does not find it so.
BrokenPair sound_pair(const std::string& layout, const MadeOptions& made = {},
                      const Dims& dims = {}, const std::string& family = "qwen3_moe");
MadeOptions one_a();  // gate and up share their A
Dims square();        // H == I

packed::Report checked(const BrokenPair& pair, bool products = true);

// Caught by bits alone, caught with products too, and named so and in no other way.
void check_named(const BrokenPair& pair, const std::string& name);

// values[i, j, k] of a 3-D tensor.
struct View {
  Values& values;
  const Shape& shape;
  float& at(int64_t i, int64_t j, int64_t k) const {
    return values[static_cast<size_t>((i * shape[1] + j) * shape[2] + k)];
  }
};

// Each changes the tensors whose names hold all of `parts`; a failed test where there is none.
using Parts = std::vector<std::string>;
// Rows [out] of [out, r] or [E, out, r] in another order: new row j of n is old row from(j, n).
void reorder_rows(Held& held, const Parts& parts,
                  const std::function<int64_t(int64_t j, int64_t n)>& from);
// Experts of 3-D tensors in another order: expert e holds from(e).
void reorder_experts(Held& held, const Parts& parts, const std::function<size_t(size_t e)>& from);
void scale_values(Held& held, const Parts& parts, float by);
// Data of the other orientation's order in every matrix [.., m, n].
void reshape_instead(Held& held, const Parts& parts);

// Exchanges the tensors whose names differ in `a` and `b` only.
void exchange(Held& held, const std::string& a, const std::string& b);

// All tensors, which must be 3-D, padded to `rank` with what `fill` gives, and the scale kept.
void pad(Held& held, int64_t rank, const std::function<float()>& fill);

void set(Held& held, const std::string& key, Json value);  // of the config

}  // namespace moelora::test
