// An example of a mixer kind: each token gets the mean of those up to it, through one Linear.

#include "lib/forward/mixer.h"

namespace moelora {
namespace {

class RunningMean : public MixerOf<RunningMean> {
 public:
  RunningMean(const FamilySection& section, int64_t) : out_(section.text("path", "mean")) {
    section.allow_only({"kind", "layers", "path"});
  }

  template <class T>
  Matrix<T> compute(const LayerPass<T>& pass, const Matrix<T>& x) const {
    const Batch& batch = pass.batch();
    Matrix<T> means(x.rows(), x.cols());
    for (int64_t s = 0; s < batch.sequences(); ++s) {
      RowVector<T> sum = RowVector<T>::Zero(x.cols());
      for (int64_t i = 0; i < batch.length(s); ++i) {
        sum += x.row(batch.first(s) + i);
        means.row(batch.first(s) + i) = sum / static_cast<T>(i + 1);
      }
    }
    return pass.linear(out_, means);
  }

 private:
  std::string out_;
};

}  // namespace

const MixerKind running_mean_mixer = {"running_mean", make_mixer_of<RunningMean>};

}  // namespace moelora
