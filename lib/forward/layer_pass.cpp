#include "lib/forward/layer_pass.h"

#include <fmt/format.h>

#include <algorithm>

namespace moelora {

int64_t Batch::longest() const {
  int64_t out = 0;
  for (int64_t s = 0; s < sequences(); ++s) out = std::max(out, length(s));
  return out;
}

Batch Batch::part(int64_t first, int64_t count) const {
  Batch out;
  for (int64_t s = first; s < first + count; ++s) {
    const auto begin = tokens.begin() + this->first(s);
    out.tokens.insert(out.tokens.end(), begin, begin + length(s));
    out.starts.push_back(static_cast<int64_t>(out.tokens.size()));
  }
  return out;
}

template <class T>
LayerPass<T>::LayerPass(const ModelWeights& weights, const NormSpec& norm, const Batch& batch,
                        Carried<T>& carried, int layer, const PassOptions& options)
    : weights_(weights),
      norm_(norm),
      batch_(batch),
      carried_(carried),
      stem_(weights.layer_path(layer) + "."),
      layer_(layer),
      options_(options) {}

template <class T>
Matrix<T> LayerPass<T>::linear(const std::string& name, const Matrix<T>& x) const {
  Matrix<T> out = apply_linear(weights_.linear(path(name)), x, threads());
  round(out);
  return out;
}

template <class T>
Matrix<T> LayerPass<T>::linear(const std::string& name, const Matrix<T>& x, int64_t outputs) const {
  const LinearSpec& spec = linear_spec(name);
  if (spec.out == outputs) return linear(name, x);
  throw Error(path(name), fmt::format("has {} outputs, the family's \"forward\" expects {}",
                                      spec.out, outputs));
}

template <class T>
const LinearSpec* LayerPass<T>::find_linear(const std::string& name) const {
  return weights_.find_linear(path(name));
}

template <class T>
const LinearSpec& LayerPass<T>::linear_spec(const std::string& name) const {
  if (const LinearSpec* found = find_linear(name)) return *found;
  throw Error(path(name), "is asked for by the family's \"forward\", and its modules have none");
}

template <class T>
Matrix<T> LayerPass<T>::normed(const std::string& name, const Matrix<T>& x, int64_t width) const {
  return normed(name, norm_, x, width);
}

template <class T>
Matrix<T> LayerPass<T>::normed(const std::string& name, const NormSpec& norm, const Matrix<T>& x,
                               int64_t width) const {
  if (width == 0) width = x.cols();
  const RowVector<T> weight = vector(name + ".weight", width);
  RowVector<T> bias;
  if (norm.kind == NormKind::layer) bias = vector(name + ".bias", width);
  Matrix<T> pieces = Eigen::Map<const Matrix<T>>(x.data(), x.size() / width, width);
  pieces = normalized(norm, pieces, weight, bias);
  round(pieces);
  return Eigen::Map<const Matrix<T>>(pieces.data(), x.rows(), x.cols());
}

template <class T>
Matrix<T> LayerPass<T>::parameter(const std::string& name, const Shape& shape) const {
  return read_matrix<T>(weights_.parameter(path(name), shape));
}

template <class T>
RowVector<T> LayerPass<T>::vector(const std::string& name, int64_t count) const {
  return read_matrix<T>(weights_.vector(path(name), count)).row(0);
}

template class LayerPass<float>;
template class LayerPass<double>;

}  // namespace moelora
