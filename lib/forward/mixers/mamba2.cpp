#include <algorithm>
#include <cmath>
#include <limits>

#include "lib/base/parallel.h"
#include "lib/forward/causal_conv.h"
#include "lib/forward/elementwise.h"
#include "lib/forward/mixer.h"

namespace moelora {
namespace {

// The bounds of a step: two numbers of the config, where JSON has none for infinity and
// transformers writes {"__float__": "Infinity"}.
struct StepLimit {
  double least = 0, most = std::numeric_limits<double>::infinity();
};

double bound(const JsonView& json) {
  if (!json.json().is(Json::Kind::object)) return config_number(json);
  json.at("__float__").one_of({"Infinity"});
  return std::numeric_limits<double>::infinity();
}

StepLimit step_limit(const FamilySection& section) {
  const auto found = section.config("time_step_limit");
  if (!found) return {};
  const auto items = found->items();
  StepLimit out;
  if (items.size() == 2) out = {bound(items[0]), bound(items[1])};
  if (items.size() != 2 || !(out.least <= out.most))
    found->fail("expected two numbers, the least and the most");
  return out;
}

template <class T>
struct Inputs {
  Matrix<T> xbc;   // [tokens, inner + 2 * groups * state]
  Matrix<T> gate;  // [tokens, inner]
  Matrix<T> step;  // [tokens, heads]
};

// Mamba 2. For each head a state S [head_dim, state] decays, takes a token's x [head_dim] in along
// b [state], and is read along c [state], which the heads of a group share:
//   S = exp(-exp(A_log) * step) S + step * x^T b
//   y = c S^T + D x
// with step = softplus(.. + dt_bias) within bounds, x, b and c after a short convolution; then
// out(norm(y * silu(gate))), where the norm is of each group apart.
class Mamba2 : public MixerOf<Mamba2> {
 public:
  Mamba2(const FamilySection& section, int64_t)
      : path_(section.text("path", "mamba")),
        heads_(section.size("heads", 0)),
        head_dim_(section.size("head_dim", 0)),
        groups_(section.size("groups", 0)),
        state_(section.size("state", 0)),
        limit_(step_limit(section)),
        conv_(make_causal_conv(section, path_, "conv1d")) {
    section.allow_only({"kind", "layers", "path", "heads", "head_dim", "groups", "state", "conv",
                        "taps", "conv_bias", "activation_key"});
    for (const char* key : {"heads", "head_dim", "groups", "state"})
      if (section.size(key, 0) < 1) section.fail(key, "must be positive");
    if (heads_ % groups_ != 0) section.fail("groups", "does not divide the heads");
    require_silu(section, section.text("activation_key", "hidden_act"));
  }

  template <class T>
  Matrix<T> compute(const LayerPass<T>& pass, const Matrix<T>& x) const {
    const Inputs<T> in = inputs(pass, x);
    const RowVector<T> speed = of_heads(pass, "A_log").array().exp();
    const RowVector<T> skip = of_heads(pass, "D");
    const Batch& batch = pass.batch();
    Matrix<T> mixed(x.rows(), inner());
    parallel_for(batch.sequences() * heads_, pass.threads(), [&](int64_t item, int) {
      const int64_t s = item / heads_, h = item % heads_;
      run_head(in, h, speed(h), skip(h), batch.first(s), batch.length(s), mixed);
    });
    return pass.linear(path("out_proj"), normed<T>(pass, mixed.cwiseProduct(silu_of(in.gate))));
  }

 private:
  std::string path(const std::string& name) const { return path_ + "." + name; }
  int64_t inner() const { return heads_ * head_dim_; }

  template <class T>
  RowVector<T> of_heads(const LayerPass<T>& pass, const std::string& name) const {
    return pass.vector(path(name), heads_);
  }

  template <class T>
  Inputs<T> inputs(const LayerPass<T>& pass, const Matrix<T>& x) const {
    const int64_t filtered = inner() + 2 * groups_ * state_;
    const Matrix<T> all = pass.linear(path("in_proj"), x, inner() + filtered + heads_);
    Inputs<T> out;
    out.gate = all.leftCols(inner());
    out.xbc = silu_of<T>(convolved<T>(conv_, pass, all.middleCols(inner(), filtered)));
    out.step = all.rightCols(heads_).rowwise() + of_heads(pass, "dt_bias");
    for (T& step : out.step.reshaped())
      step = std::clamp(softplus(step), static_cast<T>(limit_.least), static_cast<T>(limit_.most));
    return out;
  }

  // One head of one sequence, tokens [first, first + length).
  template <class T>
  void run_head(const Inputs<T>& in, int64_t h, T speed, T skip, int64_t first, int64_t length,
                Matrix<T>& out) const {
    const int64_t b_at = inner() + h / (heads_ / groups_) * state_, c_at = b_at + groups_ * state_;
    Matrix<T> state = Matrix<T>::Zero(head_dim_, state_);
    for (int64_t t = first; t < first + length; ++t) {
      const auto row = in.xbc.row(t);
      const auto x = row.segment(h * head_dim_, head_dim_);
      const T step = in.step(t, h);
      state *= std::exp(-speed * step);
      state.noalias() += (step * x).transpose() * row.segment(b_at, state_);
      out.row(t).segment(h * head_dim_, head_dim_) =
          row.segment(c_at, state_) * state.transpose() + skip * x;
    }
  }

  template <class T>
  Matrix<T> normed(const LayerPass<T>& pass, const Matrix<T>& mixed) const {
    const RowVector<T> weight = pass.vector(path("norm.weight"), inner());
    Matrix<T> pieces =
        Eigen::Map<const Matrix<T>>(mixed.data(), mixed.rows() * groups_, inner() / groups_);
    pieces = normalized({NormKind::rms, pass.norm().eps}, pieces);
    Matrix<T> out = Eigen::Map<const Matrix<T>>(pieces.data(), mixed.rows(), mixed.cols());
    out.array().rowwise() *= weight.array();
    return out;
  }

  std::string path_;
  int64_t heads_, head_dim_, groups_, state_;
  StepLimit limit_;
  CausalConv conv_;
};

}  // namespace

const MixerKind mamba2_mixer = {"mamba2", make_mixer_of<Mamba2>};

}  // namespace moelora
