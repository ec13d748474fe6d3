#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/forward/family_section.h"
#include "lib/forward/layer_pass.h"

namespace moelora {

// The experts of each token, best first, and how much of each: [tokens, K].
template <class T>
struct Chosen {
  Eigen::Matrix<int32_t, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> experts;
  Matrix<T> weights;
};

// How a family's router chooses ("router" of its section):
//   scores   of all experts out of the router's logits
//   choice   the K best by score plus `bias` (which has no part in the weights; left out unless
//            `bias_if`), within the `keep` best of `groups` groups
//   weights  the chosen scores; `then` over those alone; `normalize` to a sum of 1, where `floor`
//            is added to the sum and `least` is its least value; times `scale`
// With `jitter` all of it is SparseMixer's instead (Phi-3.5-MoE).
class Router {
 public:
  explicit Router(const FamilySection& section);

  // x [tokens, hidden].
  template <class T>
  Chosen<T> choose(const LayerPass<T>& pass, const Matrix<T>& x) const;

 private:
  enum class Scores : uint8_t { logits, softmax, sigmoid };
  enum class GroupBy : uint8_t { top_two, best };

  template <class T>
  void choose_token(RowVector<T> scores, const RowVector<T>& bias, int32_t* experts,
                    T* weights) const;
  template <class T>
  void mix_sparsely(const RowVector<T>& logits, int32_t* experts, T* weights) const;
  template <class T>
  void leave_groups(RowVector<T>& ranked) const;

  std::string module_, bias_;
  Scores scores_, then_;
  int64_t top_k_, groups_, keep_;
  GroupBy group_by_;
  bool normalize_;
  double floor_, least_, scale_;
  double jitter_ = -1;  // of SparseMixer; negative: another router
};

// values -> softmax(values), sigmoid(values).
template <class T>
RowVector<T> softmax_of(const RowVector<T>& values);
template <class T>
RowVector<T> sigmoid_of(const RowVector<T>& values);

}  // namespace moelora
