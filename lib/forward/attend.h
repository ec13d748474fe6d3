#pragma once

#include <cstdint>

#include "lib/forward/layer_pass.h"
#include "lib/forward/matrix.h"

namespace moelora {

// Causal softmax attention of grouped heads: query head h looks at key head h / (heads / kv_heads).
struct AttendSpec {
  int64_t heads = 0, kv_heads = 0;
  int64_t key_dim = 0, value_dim = 0;  // of a head
  double scale = 1;                    // of q k
  double cap = 0;                      // cap * tanh(score / cap) where not 0
  int64_t window = 0;                  // keys that a token sees, itself included; 0: all before it
  int64_t chunk = 0;                   // keys of its own chunk of this many tokens; 0: all
};

// Which keys a token sees, where an indexer chooses: [tokens, longest sequence], by position.
using Visible = Eigen::Matrix<bool, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// q [tokens, heads * key_dim], k [tokens, kv_heads * key_dim], v [tokens, kv_heads * value_dim];
// the result is [tokens, heads * value_dim]. `sinks` [heads] are logits that join each softmax and
// add nothing to its sum (gpt-oss); empty for none. `visible` may be null.
template <class T>
Matrix<T> attend(const AttendSpec& spec, const LayerPass<T>& pass, const Matrix<T>& q,
                 const Matrix<T>& k, const Matrix<T>& v, const RowVector<T>& sinks = {},
                 const Visible* visible = nullptr);

extern template Matrix<float> attend(const AttendSpec&, const LayerPass<float>&,
                                     const Matrix<float>&, const Matrix<float>&,
                                     const Matrix<float>&, const RowVector<float>&, const Visible*);
extern template Matrix<double> attend(const AttendSpec&, const LayerPass<double>&,
                                      const Matrix<double>&, const Matrix<double>&,
                                      const Matrix<double>&, const RowVector<double>&,
                                      const Visible*);

}  // namespace moelora
