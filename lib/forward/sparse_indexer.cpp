#include "lib/forward/sparse_indexer.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "lib/base/parallel.h"

namespace moelora {
namespace {

constexpr const char* kCarried = "sparse_indexer";  // keys of each token, -1 where it has fewer

template <class T>
Visible visible_of(const Batch& batch, const Matrix<T>& keys) {
  Visible out = Visible::Constant(keys.rows(), batch.longest(), false);
  for (int64_t t = 0; t < keys.rows(); ++t)
    for (int64_t i = 0; i < keys.cols() && keys(t, i) >= 0; ++i)
      out(t, static_cast<int64_t>(keys(t, i))) = true;
  return out;
}

// Positions of the largest scores into `out` [top]. `scores` are of the keys up to a token,
// `length` is the sequence's. The algorithms are those of torch's topk on a CPU, over the whole
// sequence with later keys last, for what they do with equal scores: an indexer of few heads often
// scores 0.
template <class T>
void best_keys(const RowVector<T>& scores, int64_t length, Eigen::Ref<RowVector<T>> out) {
  constexpr int64_t kFew = 64;  // of so many times more, the best are sorted out
  using Key = std::pair<T, int64_t>;
  const auto better = [](const Key& a, const Key& b) { return a.first > b.first; };
  std::vector<Key> keys(static_cast<size_t>(length));
  for (int64_t j = 0; j < length; ++j)
    keys[static_cast<size_t>(j)] = {
        j < scores.size() ? scores(j) : std::numeric_limits<T>::lowest(), j};
  const int64_t top = std::min(out.size(), length);
  const auto last = keys.begin() + top;
  if (top * kFew <= length)
    std::partial_sort(keys.begin(), last, keys.end(), better);
  else
    std::nth_element(keys.begin(), last - 1, keys.end(), better);
  out.setConstant(T{-1});
  int64_t count = 0;
  for (auto key = keys.begin(); key != last; ++key)
    if (key->second < scores.size()) out(count++) = static_cast<T>(key->second);
}

}  // namespace

SparseIndexer::SparseIndexer(const FamilySection& section, std::optional<Rope> rope)
    : path_(section.text("path", "self_attn.indexer")),
      heads_(section.size("heads", 0)),
      head_dim_(section.size("head_dim", 0)),
      top_(section.size("top", 0)),
      key_norm_{NormKind::layer, section.number("norm_eps", NormSpec().eps)},
      rope_(std::move(rope)) {
  section.allow_only({"path", "heads", "head_dim", "top", "norm_eps", "pairs"});
  for (const char* key : {"heads", "head_dim", "top"})
    if (section.size(key, 0) < 1) section.fail(key, "is not above zero");
  if (!rope_) return;
  rope_->pairs = static_cast<RopePairs>(section.one_of("pairs", {"halves", "interleaved"}));
  if (rope_->dims > head_dim_) section.fail("head_dim", "is less than what RoPE turns");
}

template <class T>
Matrix<T> SparseIndexer::turned(const LayerPass<T>& pass, Matrix<T> heads) const {
  if (rope_)
    turn_heads(RopeTurns<T>(*rope_, pass.batch().longest()), pass.batch(), head_dim_, 0, heads);
  return heads;
}

// The scale of the scores and that of the weights are the same for all keys, so are left out.
template <class T>
Matrix<T> SparseIndexer::choose_keys(const LayerPass<T>& pass, const Matrix<T>& x,
                                     const Matrix<T>& latent) const {
  const Batch& batch = pass.batch();
  const Matrix<T> q = turned(pass, pass.linear(path("wq_b"), latent, heads_ * head_dim_));
  const Matrix<T> k =
      turned(pass, pass.normed(path("k_norm"), key_norm_, pass.linear(path("wk"), x, head_dim_)));
  const Matrix<T> weights = pass.linear(path("weights_proj"), x, heads_);
  Matrix<T> out(x.rows(), top_);
  const auto token = [&](int64_t s, int64_t position) {
    const int64_t row = batch.first(s) + position;
    const Eigen::Map<const Matrix<T>> of_heads(q.row(row).data(), heads_, head_dim_);
    const Matrix<T> scores =
        (of_heads * k.middleRows(batch.first(s), position + 1).transpose()).cwiseMax(T{0});
    best_keys<T>(weights.row(row) * scores, batch.length(s), out.row(row));
  };
  for (int64_t s = 0; s < batch.sequences(); ++s)
    parallel_for(batch.length(s), pass.threads(), [&](int64_t i, int) { token(s, i); });
  return out;
}

template <class T>
std::optional<Visible> SparseIndexer::choose(const LayerPass<T>& pass, const Matrix<T>& x,
                                             const Matrix<T>& latent) const {
  if (pass.batch().longest() <= top_) return std::nullopt;
  if (pass.find_linear(path("wk")) != nullptr)
    pass.carried()[kCarried] = choose_keys(pass, x, latent);
  const auto chosen = pass.carried().find(kCarried);
  if (chosen == pass.carried().end())
    throw Error(pass.path(path_), "is not in this layer, and no layer before it has one");
  return visible_of(pass.batch(), chosen->second);
}

template std::optional<Visible> SparseIndexer::choose(const LayerPass<float>&, const Matrix<float>&,
                                                      const Matrix<float>&) const;
template std::optional<Visible> SparseIndexer::choose(const LayerPass<double>&,
                                                      const Matrix<double>&,
                                                      const Matrix<double>&) const;

}  // namespace moelora
