#include "lib/forward/router.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace moelora {
namespace {

// Indices of the `count` largest, largest first; of equal ones the first.
template <class T>
std::vector<int32_t> largest(const RowVector<T>& values, int64_t count) {
  std::vector<int32_t> order(static_cast<size_t>(values.size()));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return values(a) > values(b); });
  order.resize(static_cast<size_t>(count));
  return order;
}

}  // namespace

template <class T>
RowVector<T> softmax_of(const RowVector<T>& values) {
  const RowVector<T> out = (values.array() - values.maxCoeff()).exp();
  return out / out.sum();
}

template <class T>
RowVector<T> sigmoid_of(const RowVector<T>& values) {
  return (T{1} + (-values.array()).exp()).inverse();
}

Router::Router(const FamilySection& section)
    : module_(section.text("path", "mlp.gate")),
      bias_(section.flag("bias_if", true) ? section.text("bias") : ""),
      scores_(static_cast<Scores>(section.one_of("scores", {"logits", "softmax", "sigmoid"}))),
      then_(static_cast<Scores>(section.one_of("then", {"none", "softmax", "sigmoid"}))),
      top_k_(section.spec().top_k),
      groups_(section.flag("groups_if", true) ? section.size("groups", 1) : 1),
      keep_(groups_ > 1 ? section.size("keep", 1) : 1),
      group_by_(static_cast<GroupBy>(section.one_of("group_by", {"top_two", "best"}))),
      normalize_(section.flag("normalize")),
      floor_(section.number("floor", 0)),
      least_(section.number("least", 0)),
      scale_(section.number("scale", 1)) {
  section.allow_only({"path", "bias", "bias_if", "scores", "then", "groups", "groups_if", "keep",
                      "group_by", "normalize", "floor", "least", "scale", "jitter"});
  jitter_ = section.number("jitter", -1);
  if (groups_ < 1 || section.spec().experts % groups_ != 0 || keep_ > groups_)
    section.fail("groups", "does not divide the experts");
}

// Experts of groups that are not kept are never chosen.
template <class T>
void Router::leave_groups(RowVector<T>& ranked) const {
  const int64_t size = ranked.size() / groups_;
  RowVector<T> best(groups_);
  for (int64_t g = 0; g < groups_; ++g) {
    const RowVector<T> group = ranked.segment(g * size, size);
    const int64_t count = group_by_ == GroupBy::best ? 1 : std::min<int64_t>(2, size);
    best(g) = 0;
    for (const int32_t e : largest<T>(group, count)) best(g) += group(e);
  }
  const std::vector<int32_t> kept = largest(best, keep_);
  for (int64_t g = 0; g < groups_; ++g)
    if (std::find(kept.begin(), kept.end(), g) == kept.end())
      ranked.segment(g * size, size).setConstant(-std::numeric_limits<T>::infinity());
}

// Phi-3.5-MoE's SparseMixer: the best expert, weighed among those whose logits are near its own,
// then the best of the others in the same way.
template <class T>
void Router::mix_sparsely(const RowVector<T>& logits, int32_t* experts, T* weights) const {
  constexpr T kOut = -std::numeric_limits<T>::infinity();
  RowVector<T> left = logits;
  for (int64_t k = 0; k < top_k_; ++k) {
    const T most = left.maxCoeff(&experts[k]);
    RowVector<T> near = left;
    for (int64_t e = 0; e < near.size(); ++e)
      if ((most - logits(e)) / std::max(std::abs(logits(e)), most) > static_cast<T>(2 * jitter_))
        near(e) = kOut;
    weights[k] = softmax_of(near)(experts[k]);
    left(experts[k]) = kOut;
  }
}

template <class T>
void Router::choose_token(RowVector<T> scores, const RowVector<T>& bias, int32_t* experts,
                          T* weights) const {
  if (jitter_ >= 0) return mix_sparsely(scores, experts, weights);
  if (scores_ == Scores::softmax) scores = softmax_of(scores);
  if (scores_ == Scores::sigmoid) scores = sigmoid_of(scores);
  RowVector<T> ranked = scores;
  if (bias.size() != 0) ranked += bias;
  if (groups_ > 1) leave_groups(ranked);
  const std::vector<int32_t> chosen = largest(ranked, top_k_);
  RowVector<T> of_chosen(top_k_);
  for (int64_t k = 0; k < top_k_; ++k) of_chosen(k) = scores(chosen[static_cast<size_t>(k)]);
  if (then_ == Scores::softmax) of_chosen = softmax_of(of_chosen);
  if (then_ == Scores::sigmoid) of_chosen = sigmoid_of(of_chosen);
  if (normalize_)
    of_chosen /= std::max(of_chosen.sum() + static_cast<T>(floor_), static_cast<T>(least_));
  of_chosen *= static_cast<T>(scale_);
  std::copy(chosen.begin(), chosen.end(), experts);
  std::copy(of_chosen.begin(), of_chosen.end(), weights);
}

template <class T>
Chosen<T> Router::choose(const LayerPass<T>& pass, const Matrix<T>& x) const {
  const Matrix<T> logits = pass.linear(module_, x);
  RowVector<T> bias;
  if (!bias_.empty()) bias = pass.vector(bias_, logits.cols());
  Chosen<T> out;
  out.experts.resize(x.rows(), top_k_);
  out.weights.resize(x.rows(), top_k_);
  for (int64_t t = 0; t < x.rows(); ++t)
    choose_token<T>(logits.row(t), bias, out.experts.row(t).data(), out.weights.row(t).data());
  return out;
}

template RowVector<float> softmax_of(const RowVector<float>&);
template RowVector<double> softmax_of(const RowVector<double>&);
template RowVector<float> sigmoid_of(const RowVector<float>&);
template RowVector<double> sigmoid_of(const RowVector<double>&);
template Chosen<float> Router::choose(const LayerPass<float>&, const Matrix<float>&) const;
template Chosen<double> Router::choose(const LayerPass<double>&, const Matrix<double>&) const;

}  // namespace moelora
