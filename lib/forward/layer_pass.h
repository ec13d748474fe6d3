#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lib/forward/linear.h"
#include "lib/forward/matrix.h"
#include "lib/forward/model_weights.h"
#include "lib/forward/norm.h"
#include "lib/forward/rounding.h"

namespace moelora {

// Sequences of tokens one after the other: sequence s is rows [starts[s], starts[s + 1]) of what
// the layers compute. No token sees another sequence's.
struct Batch {
  std::vector<int64_t> tokens;
  std::vector<int64_t> starts = {0};

  int64_t sequences() const { return static_cast<int64_t>(starts.size()) - 1; }
  int64_t first(int64_t s) const { return starts[static_cast<size_t>(s)]; }
  int64_t length(int64_t s) const { return first(s + 1) - first(s); }
  int64_t longest() const;
  Batch part(int64_t first, int64_t count) const;  // sequences [first, first + count)
};

// What layers hand on to later ones (keys and values that those share), by a name of theirs.
template <class T>
using Carried = std::map<std::string, Matrix<T>>;

struct PassOptions {
  int threads = 0;      // 0: all cores
  uint64_t memory = 0;  // bytes for what routed experts hold at a time
  bool rounds = false;  // to BF16 (Precision::bf16)
};

// One layer while it is computed: its weights by their names below it, applied to rows of
// activations, one a token.
template <class T>
class LayerPass {
 public:
  // Refers to all of its arguments but the last.
  LayerPass(const ModelWeights& weights, const NormSpec& norm, const Batch& batch,
            Carried<T>& carried, int layer, const PassOptions& options);

  const Batch& batch() const { return batch_; }
  const NormSpec& norm() const { return norm_; }
  int layer() const { return layer_; }
  int threads() const { return options_.threads; }
  uint64_t memory() const { return options_.memory; }
  bool rounds() const { return options_.rounds; }
  const ModelWeights& weights() const { return weights_; }
  Carried<T>& carried() const { return carried_; }

  // Where a server stores activations.
  void round(Matrix<T>& values) const {
    if (options_.rounds) round_to_bf16(values);
  }

  std::string path(const std::string& name) const { return stem_ + name; }

  // x W^T + b with LoRA of the module NAME; null of find_linear() where there is none.
  Matrix<T> linear(const std::string& name, const Matrix<T>& x) const;
  // The same; Error where it has not so many outputs.
  Matrix<T> linear(const std::string& name, const Matrix<T>& x, int64_t outputs) const;
  const LinearSpec* find_linear(const std::string& name) const;
  const LinearSpec& linear_spec(const std::string& name) const;  // Error where there is none

  // Rows of x, in pieces of `width` each (0: whole rows), by the norm NAME: NAME.weight and, of
  // NormKind::layer, NAME.bias, of `width` values.
  Matrix<T> normed(const std::string& name, const Matrix<T>& x, int64_t width = 0) const;
  Matrix<T> normed(const std::string& name, const NormSpec& norm, const Matrix<T>& x,
                   int64_t width = 0) const;

  // A parameter of this many elements, whatever its shape: [1, n] and [n] are both in use.
  RowVector<T> vector(const std::string& name, int64_t count) const;

  // A parameter as a matrix of its last dim's columns.
  Matrix<T> parameter(const std::string& name, const Shape& shape) const;

 private:
  const ModelWeights& weights_;
  const NormSpec& norm_;
  const Batch& batch_;
  Carried<T>& carried_;
  std::string stem_;
  int layer_;
  PassOptions options_;
};

extern template class LayerPass<float>;
extern template class LayerPass<double>;

}  // namespace moelora
