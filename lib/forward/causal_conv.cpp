#include "lib/forward/causal_conv.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/base/parallel.h"

namespace moelora {

CausalConv make_causal_conv(const FamilySection& section, const std::string& path,
                            std::string_view usual_name) {
  CausalConv out;
  out.name = path + "." + section.text("conv", usual_name);
  out.taps = section.size("taps", 0);
  out.has_bias = section.flag("conv_bias");
  if (out.taps < 1) section.fail("taps", "a convolution needs one at least");
  return out;
}

template <class T>
Matrix<T> convolved(const CausalConv& conv, const LayerPass<T>& pass, const Matrix<T>& x) {
  const Matrix<T> weight =
      pass.parameter(conv.name + ".weight", {x.cols(), 1, conv.taps}).transpose();
  Matrix<T> out = Matrix<T>::Zero(x.rows(), x.cols());
  if (conv.has_bias) out.rowwise() = pass.vector(conv.name + ".bias", x.cols());
  const Batch& batch = pass.batch();
  parallel_for(batch.sequences(), pass.threads(), [&](int64_t s, int) {
    const int64_t first = batch.first(s);
    for (int64_t t = first; t < first + batch.length(s); ++t)
      for (int64_t back = 0; back < std::min(conv.taps, t - first + 1); ++back)
        out.row(t) += weight.row(conv.taps - 1 - back).cwiseProduct(x.row(t - back));
  });
  return out;
}

void require_silu(const FamilySection& section, std::string_view key) {
  const auto found = section.config(key);
  if (!found || found->string() == "silu" || found->string() == "swish") return;
  throw Error(section.base().origin,
              fmt::format("\"{}\" is {}, and layers of its kind are known with silu alone", key,
                          found->string()));
}

template Matrix<float> convolved(const CausalConv&, const LayerPass<float>&, const Matrix<float>&);
template Matrix<double> convolved(const CausalConv&, const LayerPass<double>&,
                                  const Matrix<double>&);

}  // namespace moelora
