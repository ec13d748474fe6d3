#pragma once

#include "lib/forward/layer_pass.h"
#include "lib/forward/router.h"

namespace moelora {

// The routed experts of a layer on x [tokens, width], by what the router chose: the sum of each
// token's experts, weighed (moe_layer.h of lib/numeric). All weights of chosen experts are read
// once.
template <class T>
Matrix<T> run_experts(const MoeLayer& layer, const LayerPass<T>& pass, const Chosen<T>& chosen,
                      const Matrix<T>& x);

extern template Matrix<float> run_experts(const MoeLayer&, const LayerPass<float>&,
                                          const Chosen<float>&, const Matrix<float>&);
extern template Matrix<double> run_experts(const MoeLayer&, const LayerPass<double>&,
                                           const Chosen<double>&, const Matrix<double>&);

}  // namespace moelora
