#include "lib/numeric/expert_linear.h"

#include <Eigen/Core>
#include <algorithm>

#include "lib/base/cast.h"
#include "lib/base/parallel.h"
#include "lib/numeric/dot_products.h"

namespace moelora {
namespace {

template <class T>
using Rows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class T>
constexpr DType dtype_of() {
  return sizeof(T) == 8 ? DType::F64 : DType::F32;
}

// Elements of a matrix that are held as T at a time: 2 or 4 MB.
constexpr int64_t kBlock = int64_t{1} << 19;

// A matrix as its file stores it, handed out as T in blocks of rows.
template <class T>
class StoredMatrix {
 public:
  explicit StoredMatrix(const Tensor& tensor)
      : dtype_(tensor.dtype()), cols_(tensor.dim(1)), bytes_(tensor.read()) {}

  void block(int64_t first, int64_t count, Rows<T>& out) const {
    out.resize(count, cols_);
    const std::byte* from = bytes_.data() + first * cols_ * dtype_bytes(dtype_);
    cast_elements(dtype_, dtype_of<T>(), count * cols_, from,
                  reinterpret_cast<std::byte*>(out.data()));
  }

 private:
  DType dtype_;
  int64_t cols_;
  std::vector<std::byte> bytes_;
};

template <class T>
std::vector<T> read_row(const Tensor& tensor) {
  const std::vector<double> values = read_double(tensor);
  return std::vector<T>(values.begin(), values.end());
}

// The rows of `pairs` out of a matrix of `stride` columns, of which the first `cols` are taken.
template <class T>
Rows<T> gather(std::span<const T> in, int64_t stride, const std::vector<int64_t>& pairs,
               int64_t cols) {
  Rows<T> out(static_cast<int64_t>(pairs.size()), cols);
  for (size_t i = 0; i < pairs.size(); ++i) {
    const T* row = in.data() + pairs[i] * stride;
    std::copy(row, row + cols, out.row(static_cast<int64_t>(i)).data());
  }
  return out;
}

// Columns [first, first + part.cols) of the pairs' rows become scale * part + bias.
template <class T>
void scatter(const Rows<T>& part, int64_t first, T scale, const std::vector<T>& bias,
             const std::vector<int64_t>& pairs, int64_t stride, std::vector<T>& out) {
  for (size_t i = 0; i < pairs.size(); ++i) {
    T* to = out.data() + pairs[i] * stride + first;
    const auto row = part.row(static_cast<int64_t>(i));
    for (int64_t c = 0; c < part.cols(); ++c) {
      to[c] = row(c) * scale;
      if (!bias.empty()) to[c] += bias[static_cast<size_t>(first + c)];
    }
  }
}

template <class T>
std::vector<T> absolute(std::vector<T> values) {
  for (T& v : values) v = std::abs(v);
  return values;
}

// What one thread works out at a time: rows [first, first + count) of a term, for some pairs.
struct Share {
  LinearTerm term;
  std::vector<int64_t> pairs;
  int64_t first, count;
};

bool is_same(const Tensor* a, const Tensor* b) {
  return a == b || (a != nullptr && b != nullptr && a->same_recipe(*b));
}

// Experts with one matrix (a base that stands in for all, a shared outer factor) are one product,
// whose rows are shared out; else an expert is a share. Whatever the number of threads: blocks of
// other sizes round otherwise.
std::vector<Share> shares_of(const std::vector<ExpertGroup>& groups,
                             const std::function<LinearTerm(int64_t expert)>& term_of) {
  constexpr int64_t kRows = 64;
  std::vector<Share> joined, out;
  for (const ExpertGroup& group : groups) {
    const LinearTerm term = term_of(group.expert);
    if (term.matrix == nullptr) continue;
    Share* last = joined.empty() ? nullptr : &joined.back();
    if (last != nullptr && is_same(last->term.matrix, term.matrix) &&
        is_same(last->term.bias, term.bias) && last->term.scale == term.scale)
      last->pairs.insert(last->pairs.end(), group.pairs.begin(), group.pairs.end());
    else
      joined.push_back({term, group.pairs, 0, term.matrix->dim(0)});
  }
  if (joined.size() == groups.size()) return joined;
  for (const Share& share : joined)
    for (int64_t first = 0; first < share.count; first += kRows)
      out.push_back({share.term, share.pairs, first, std::min(kRows, share.count - first)});
  return out;
}

// x w^T.
Rows<double> product(const Rows<double>& x, const Rows<double>& w) { return x * w.transpose(); }
Rows<float> product(const Rows<float>& x, const Rows<float>& w) {
  Rows<float> out(x.rows(), w.rows());
  multiply({x.data(), x.rows(), w.data(), w.rows(), x.cols(), out.data(), out.cols()});
  return out;
}

template <class T>
void multiply_share(const Share& share, const Rows<T>& x, int64_t out_stride,
                    Evaluated<T>& result) {
  const LinearTerm& term = share.term;
  const std::vector<int64_t>& pairs = share.pairs;
  const bool whole = share.count == term.matrix->dim(0);
  const StoredMatrix<T> matrix(whole ? *term.matrix
                                     : term.matrix->slice(0, share.first, share.count));
  const int64_t rows = share.count, columns = term.matrix->dim(1);
  const std::vector<T> bias = term.bias == nullptr ? std::vector<T>() : read_row<T>(*term.bias);
  const std::vector<T> bias_size = absolute(bias);
  const auto scale = static_cast<T>(term.scale);
  const int64_t step = std::max<int64_t>(1, kBlock / std::max<int64_t>(1, columns));
  Rows<T> block;
  for (int64_t first = 0; first < rows; first += step) {
    matrix.block(first, std::min(step, rows - first), block);
    const int64_t at = share.first + first;
    scatter<T>(product(x, block), at, scale, bias, pairs, out_stride, result.value);
    if (result.magnitude.empty()) continue;
    scatter<T>(product(Rows<T>(x.cwiseAbs()), Rows<T>(block.cwiseAbs())), at, std::abs(scale),
               bias_size, pairs, out_stride, result.magnitude);
  }
}

}  // namespace

template <class T>
ExpertLinear<T>::ExpertLinear(const MoeWeights& weights, const std::vector<ExpertGroup>& groups,
                              Projection p, int64_t pairs, int threads)
    : weights_(weights), groups_(groups), projection_(p), pairs_(pairs), threads_(threads) {
  if (lora() != nullptr) rank_ = max_rank(*lora());
}

template <class T>
const ExpertPair* ExpertLinear<T>::lora() const {
  const auto found = weights_.lora.find(projection_);
  return found == weights_.lora.end() ? nullptr : &found->second;
}

template <class T>
Evaluated<T> ExpertLinear<T>::base(std::span<const T> in, bool magnitude) const {
  const auto term = [&](int64_t e) {
    return LinearTerm{&weights_.base.weight(projection_, e), weights_.base.bias(projection_, e), 1};
  };
  return apply(in, weights_.base.weight(projection_, 0).dim(0), term, magnitude);
}

template <class T>
Evaluated<T> ExpertLinear<T>::rank(std::span<const T> in, bool magnitude) const {
  const auto term = [&](int64_t e) {
    const ExpertPair* pair = lora();
    return pair == nullptr || !pair->a.has(e) ? LinearTerm{}
                                              : LinearTerm{&pair->a.at(e), nullptr, 1};
  };
  return apply(in, rank_, term, magnitude);
}

template <class T>
Evaluated<T> ExpertLinear<T>::delta(std::span<const T> rank, bool magnitude) const {
  const auto term = [&](int64_t e) {
    const ExpertPair* pair = lora();
    if (pair == nullptr || !pair->b.has(e)) return LinearTerm{};
    return LinearTerm{&pair->b.at(e), nullptr, pair->scaling_of(e).value()};
  };
  return apply(rank, weights_.base.weight(projection_, 0).dim(0), term, magnitude);
}

template <class T>
Evaluated<T> ExpertLinear<T>::apply(std::span<const T> in, int64_t out_stride,
                                    const TermOf& term_of, bool magnitude) const {
  const auto size = static_cast<size_t>(pairs_ * out_stride);
  Evaluated<T> result{std::vector<T>(size), std::vector<T>(magnitude ? size : 0)};
  if (size == 0) return result;
  const int64_t in_stride = static_cast<int64_t>(in.size()) / pairs_;
  const std::vector<Share> shares = shares_of(groups_, term_of);
  parallel_for(static_cast<int64_t>(shares.size()), threads_, [&](int64_t item, int) {
    const Share& share = shares[static_cast<size_t>(item)];
    const Rows<T> x = gather<T>(in, in_stride, share.pairs, share.term.matrix->dim(1));
    multiply_share(share, x, out_stride, result);
  });
  return result;
}

template class ExpertLinear<float>;
template class ExpertLinear<double>;

}  // namespace moelora
