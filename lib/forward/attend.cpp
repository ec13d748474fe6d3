#include "lib/forward/attend.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lib/base/parallel.h"

namespace moelora {
namespace {

// Rows of scores at a time: a block of queries of one head against the keys before its end.
constexpr int64_t kQueries = 64;

struct Span {
  int64_t first, count;  // of keys, within the sequence
};

Span seen_by(const AttendSpec& spec, int64_t position) {
  int64_t first = 0;
  if (spec.window > 0) first = std::max(first, position - spec.window + 1);
  if (spec.chunk > 0) first = std::max(first, position / spec.chunk * spec.chunk);
  return {first, position - first + 1};
}

// Softmax over one row of scores [keys], with a further logit in its sum.
template <class T>
void softmax(T* row, int64_t count, const T* sink) {
  Eigen::Map<RowVector<T>> scores(row, count);
  T most = scores.maxCoeff();
  if (sink != nullptr) most = std::max(most, *sink);
  scores = (scores.array() - most).exp();
  T sum = scores.sum();
  if (sink != nullptr) sum += std::exp(*sink - most);
  scores /= sum;
}

}  // namespace

template <class T>
Matrix<T> attend(const AttendSpec& spec, const LayerPass<T>& pass, const Matrix<T>& q,
                 const Matrix<T>& k, const Matrix<T>& v, const RowVector<T>& sinks,
                 const Visible* visible) {
  const Batch& batch = pass.batch();
  Matrix<T> out(q.rows(), spec.heads * spec.value_dim);
  const int64_t group = spec.heads / spec.kv_heads;
  const auto scale = static_cast<T>(spec.scale), cap = static_cast<T>(spec.cap);
  const auto head = [&](int64_t s, int64_t h) {
    const int64_t start = batch.first(s), length = batch.length(s), kv = h / group;
    for (int64_t first = 0; first < length; first += kQueries) {
      const int64_t count = std::min(kQueries, length - first), keys = first + count;
      Matrix<T> scores =
          scale * (q.block(start + first, h * spec.key_dim, count, spec.key_dim) *
                   k.block(start, kv * spec.key_dim, keys, spec.key_dim).transpose());
      if (cap != 0) scores = cap * (scores / cap).array().tanh();
      for (int64_t i = 0; i < count; ++i) {
        const Span seen = seen_by(spec, first + i);
        auto row = scores.row(i);
        row.head(seen.first).setZero();
        row.tail(keys - seen.first - seen.count).setZero();
        if (visible != nullptr)
          for (int64_t j = seen.first; j < seen.first + seen.count; ++j)
            if (!(*visible)(start + first + i, j)) row(j) = -std::numeric_limits<T>::infinity();
        softmax(row.data() + seen.first, seen.count, sinks.size() == 0 ? nullptr : &sinks(h));
      }
      out.block(start + first, h * spec.value_dim, count, spec.value_dim) =
          scores * v.block(start, kv * spec.value_dim, keys, spec.value_dim);
    }
  };
  parallel_for(batch.sequences() * spec.heads, pass.threads(),
               [&](int64_t item, int) { head(item / spec.heads, item % spec.heads); });
  pass.round(out);
  return out;
}

template Matrix<float> attend(const AttendSpec&, const LayerPass<float>&, const Matrix<float>&,
                              const Matrix<float>&, const Matrix<float>&, const RowVector<float>&,
                              const Visible*);
template Matrix<double> attend(const AttendSpec&, const LayerPass<double>&, const Matrix<double>&,
                               const Matrix<double>&, const Matrix<double>&,
                               const RowVector<double>&, const Visible*);

}  // namespace moelora
