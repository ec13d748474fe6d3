#include "lib/forward/linear.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/base/cast.h"
#include "lib/base/parallel.h"
#include "lib/numeric/dot_products.h"

namespace moelora {
namespace {

// Elements of a weight that a thread holds as T at a time.
constexpr int64_t kBlock = int64_t{1} << 19;

void check_width(const LinearWeights& weights, int64_t columns) {
  const Tensor& w = weights.weight;
  if (w.dim(1) != columns)
    throw Error(weights.name, fmt::format("has inputs of width {}, found {}", w.dim(1), columns));
  if (!weights.lora) return;
  const Tensor &a = weights.lora->a, &b = weights.lora->b;
  if (a.dim(1) != columns || b.dim(0) != w.dim(0))
    throw Error(weights.name, fmt::format("has LoRA {} -> {}, and is {} -> {}", a.dim(1), b.dim(0),
                                          columns, w.dim(0)));
}

// x w^T.
Matrix<double> product(const Matrix<double>& x, const Matrix<double>& w) {
  return x * w.transpose();
}
Matrix<float> product(const Matrix<float>& x, const Matrix<float>& w) {
  Matrix<float> out(x.rows(), w.rows());
  multiply({x.data(), x.rows(), w.data(), w.rows(), x.cols(), out.data(), out.cols()});
  return out;
}

template <class T>
RowVector<T> read_part(const Tensor& vector, int64_t first, int64_t count) {
  return read_matrix<T>(vector.reshape({vector.elements()}).slice(0, first, count)).row(0);
}

}  // namespace

template <class T>
Matrix<T> read_matrix(const Tensor& tensor) {
  const int64_t columns = tensor.rank() == 0 ? 1 : tensor.shape().back();
  Matrix<T> out(columns == 0 ? 0 : tensor.elements() / columns, columns);
  const std::vector<std::byte> bytes = tensor.read();
  cast_elements(tensor.dtype(), sizeof(T) == 8 ? DType::F64 : DType::F32, tensor.elements(),
                bytes.data(), reinterpret_cast<std::byte*>(out.data()));
  return out;
}

template <class T>
LinearBlocks<T>::LinearBlocks(const LinearWeights& weights, const Matrix<T>& x)
    : weights_(weights), x_(x), rows_(weights.weight.dim(0)) {
  check_width(weights, x.cols());
  step_ = std::clamp<int64_t>(kBlock / std::max<int64_t>(1, x.cols()), 1, 512);
  if (!weights.lora) return;
  lora_a_ = read_matrix<T>(weights.lora->a);
  in_rank_ = static_cast<T>(weights.lora->scale) * (x * lora_a_.transpose());
}

// What DoRA multiplies each output with: magnitude / |row of W + scale B A|.
template <class T>
RowVector<T> LinearBlocks<T>::dora_factors(const Matrix<T>& w, int64_t first) const {
  const LoraTerm& lora = *weights_.lora;
  const Matrix<T> b = read_matrix<T>(lora.b.slice(0, first, w.rows()));
  const Matrix<T> merged = w + static_cast<T>(lora.scale) * (b * lora_a_);
  const RowVector<T> norms = merged.rowwise().norm().transpose();
  return read_part<T>(*weights_.magnitude, first, w.rows()).cwiseQuotient(norms);
}

template <class T>
Matrix<T> LinearBlocks<T>::compute(int64_t block) const {
  const int64_t at = first(block), count = std::min(step_, rows_ - at);
  const Matrix<T> w = read_matrix<T>(weights_.weight.slice(0, at, count));
  Matrix<T> out = product(x_, w);
  if (const auto& lora = weights_.lora) {
    out += in_rank_ * read_matrix<T>(lora->b.slice(0, at, count)).transpose();
    if (lora->bias)
      out.rowwise() += static_cast<T>(lora->scale) * read_part<T>(*lora->bias, at, count);
  }
  if (weights_.magnitude) out.array().rowwise() *= dora_factors(w, at).array();
  if (weights_.bias) out.rowwise() += read_part<T>(*weights_.bias, at, count);
  return out;
}

template <class T>
Matrix<T> apply_linear(const LinearWeights& weights, const Matrix<T>& x, int threads) {
  const LinearBlocks<T> blocks(weights, x);
  Matrix<T> out(x.rows(), weights.weight.dim(0));
  parallel_for(blocks.count(), threads, [&](int64_t block, int) {
    const Matrix<T> part = blocks.compute(block);
    out.middleCols(blocks.first(block), part.cols()) = part;
  });
  return out;
}

template class LinearBlocks<float>;
template class LinearBlocks<double>;
template Matrix<float> apply_linear(const LinearWeights&, const Matrix<float>&, int);
template Matrix<double> apply_linear(const LinearWeights&, const Matrix<double>&, int);
template Matrix<float> read_matrix(const Tensor&);
template Matrix<double> read_matrix(const Tensor&);

}  // namespace moelora
