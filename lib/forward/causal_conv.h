#pragma once

#include <cstdint>
#include <string>

#include "lib/forward/family_section.h"
#include "lib/forward/layer_pass.h"

namespace moelora {

// A filter of each channel along its sequence, torch's Conv1d with as many groups as channels:
//   y(t) = bias + weight(0) x(t - taps + 1) + .. + weight(taps - 1) x(t)
// where what comes before the sequence is 0. NAME.weight is [channels, 1, taps].
struct CausalConv {
  std::string name;
  int64_t taps = 0;
  bool has_bias = false;
};

// Of a mixer's "conv" (the name below `path`), "taps" and "conv_bias". Throws Error at the family's
// file for no taps.
CausalConv make_causal_conv(const FamilySection& section, const std::string& path,
                            std::string_view usual_name);

// x [tokens, channels], as the result.
template <class T>
Matrix<T> convolved(const CausalConv& conv, const LayerPass<T>& pass, const Matrix<T>& x);

extern template Matrix<float> convolved(const CausalConv&, const LayerPass<float>&,
                                        const Matrix<float>&);
extern template Matrix<double> convolved(const CausalConv&, const LayerPass<double>&,
                                         const Matrix<double>&);

// Throws Error at the config for an activation (of the key, where the config has it) other than
// silu: kernels of such mixers have no other.
void require_silu(const FamilySection& section, std::string_view key);

}  // namespace moelora
