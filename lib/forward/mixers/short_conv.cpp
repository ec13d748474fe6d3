#include "lib/forward/causal_conv.h"
#include "lib/forward/mixer.h"

namespace moelora {
namespace {

// A short convolution between two gates (LFM2): with [b; c; v] = in x it is out (c * conv(b * v)).
class ShortConv : public MixerOf<ShortConv> {
 public:
  ShortConv(const FamilySection& section, int64_t)
      : path_(section.text("path", "conv")),
        in_(path_ + "." + section.text("in", "in_proj")),
        out_(path_ + "." + section.text("out", "out_proj")),
        conv_(make_causal_conv(section, path_, "conv")) {
    section.allow_only({"kind", "layers", "path", "in", "out", "conv", "taps", "conv_bias"});
  }

  template <class T>
  Matrix<T> compute(const LayerPass<T>& pass, const Matrix<T>& x) const {
    const int64_t width = x.cols();
    const Matrix<T> parts = pass.linear(in_, x, 3 * width);
    const Matrix<T> gated = parts.leftCols(width).cwiseProduct(parts.rightCols(width));
    const Matrix<T> mixed = convolved(conv_, pass, gated);
    return pass.linear(out_, Matrix<T>(mixed.cwiseProduct(parts.middleCols(width, width))));
  }

 private:
  std::string path_, in_, out_;
  CausalConv conv_;
};

}  // namespace

const MixerKind short_conv_mixer = {"short_conv", make_mixer_of<ShortConv>};

}  // namespace moelora
