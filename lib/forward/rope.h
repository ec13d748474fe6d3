#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lib/forward/family_section.h"
#include "lib/forward/layer_pass.h"
#include "lib/forward/matrix.h"

namespace moelora {

// Which two numbers of a head turn together: i and i + dims / 2, or 2 i and 2 i + 1.
enum class RopePairs : uint8_t { halves, interleaved };

// A rotary position embedding: pair i of the first `dims` of a head is turned by position *
// frequency[i] and made `magnitude` times as long; the rest of the head stays as it is.
struct Rope {
  int64_t dims = 0;
  RopePairs pairs = RopePairs::halves;
  std::vector<double> frequencies;
  double magnitude = 1;
};

// As config.json says it: "rope_parameters" (transformers 5), of `layer_type` where it has an
// object for each, else "rope_scaling" and "rope_theta" (before). Types: default, linear, dynamic,
// yarn, longrope, llama3, proportional, as transformers' modeling_rope_utils.py computes them.
// `dims`: of a head, of which the config's partial_rotary_factor may take a part. `longest`: of the
// sequences, which dynamic and longrope look at. Throws Error at the config for an unknown type and
// for what a type needs.
struct RopeRequest {
  int64_t dims = 0;
  RopePairs pairs = RopePairs::halves;
  std::string layer_type = {};
  std::string theta_key = "rope_theta";  // where the config has no rope_parameters
  double theta = 10000;                  // where it says none
  double part = 1;                       // partial_rotary_factor where it says none
  std::optional<int64_t> rotated = {};   // instead of partial_rotary_factor
  bool is_unscaled = false;  // where the config has no rope_parameters: whatever rope_scaling says
  int64_t longest = 0;
};
Rope make_rope(const FamilySection& section, const RopeRequest& request);

// What an object "rope" of a mixer says: the names above, and "interleaved" where a flag of the
// config decides the pairs. `dims`: of a head where it does not say them.
RopeRequest rope_request(const FamilySection& rope, int64_t dims, int64_t longest);

// What latent attention multiplies its scores' scale with under YaRN's mscale_all_dim; 1 without.
double yarn_score_scale(const FamilySection& section);

// The turns of positions [0, count), computed once for all heads.
template <class T>
class RopeTurns {
 public:
  RopeTurns(const Rope& rope, int64_t count);

  // Turns a head of the token at `position`; head: rope.dims of it at least.
  void apply(int64_t position, T* head) const;

 private:
  RopePairs pairs_;
  Matrix<T> cos_, sin_;  // [count, pairs]
};

// Turns rows of m, one a token of the batch, in heads of `width` each, from number `offset` of
// each.
template <class T>
void turn_heads(const RopeTurns<T>& turns, const Batch& batch, int64_t width, int64_t offset,
                Matrix<T>& m);

extern template class RopeTurns<float>;
extern template class RopeTurns<double>;
extern template void turn_heads(const RopeTurns<float>&, const Batch&, int64_t, int64_t,
                                Matrix<float>&);
extern template void turn_heads(const RopeTurns<double>&, const Batch&, int64_t, int64_t,
                                Matrix<double>&);

}  // namespace moelora
