#include <cmath>

#include "lib/base/parallel.h"
#include "lib/forward/causal_conv.h"
#include "lib/forward/elementwise.h"
#include "lib/forward/mixer.h"

namespace moelora {
namespace {

// Below the root of a query's or a key's length: what the kernels of this layer (FLA) have.
constexpr double kLengthFloor = 1e-6;

template <class T>
struct Inputs {
  Matrix<T> qkv;   // [tokens, 2 * keys + values]: of all heads q, then k, then v
  Matrix<T> gate;  // [tokens, values]
  Matrix<T> rate;  // [tokens, value heads]: how much of an error is corrected, a logit
  Matrix<T> step;  // [tokens, value heads]: how long the state decays, before softplus
};

template <class T, class Row>
RowVector<T> unit(const Row& row) {
  return row / std::sqrt(row.squaredNorm() + static_cast<T>(kLengthFloor));
}

// Gated DeltaNet (Qwen3-Next). For each value head a state S [key_dim, value_dim] decays, is
// corrected where it answers a key wrongly, and is asked:
//   S *= exp(-exp(A_log) * softplus(step + dt_bias))
//   S += k^T (sigmoid(rate) * (v - k S))
//   y  = q S / sqrt(key_dim)
// with q and k of unit length, after a short convolution; then out(norm(y) * silu(gate)).
class GatedDelta : public MixerOf<GatedDelta> {
 public:
  GatedDelta(const FamilySection& section, int64_t)
      : path_(section.text("path", "linear_attn")),
        qkvz_(section.text("qkvz")),
        ba_(section.text("ba")),
        key_heads_(section.size("key_heads", 0)),
        key_dim_(section.size("key_dim", 0)),
        value_heads_(section.size("value_heads", 0)),
        value_dim_(section.size("value_dim", 0)),
        conv_(make_causal_conv(section, path_, "conv1d")) {
    section.allow_only({"kind", "layers", "path", "qkvz", "ba", "key_heads", "key_dim",
                        "value_heads", "value_dim", "conv", "taps", "conv_bias"});
    for (const char* key : {"key_heads", "key_dim", "value_heads", "value_dim"})
      if (section.size(key, 0) < 1) section.fail(key, "must be positive");
    if (value_heads_ % key_heads_ != 0)
      section.fail("key_heads", "does not divide the value heads");
    if (qkvz_.empty() != ba_.empty()) section.fail(qkvz_.empty() ? "qkvz" : "ba", "has no name");
    require_silu(section, "hidden_act");
  }

  template <class T>
  Matrix<T> compute(const LayerPass<T>& pass, const Matrix<T>& x) const {
    Inputs<T> in = qkvz_.empty() ? apart(pass, x) : grouped(pass, x);
    in.qkv = silu_of<T>(convolved(conv_, pass, in.qkv));
    const Matrix<T> decay = decay_of(pass, in.step);
    const Batch& batch = pass.batch();
    Matrix<T> mixed(x.rows(), values());
    parallel_for(batch.sequences() * value_heads_, pass.threads(), [&](int64_t item, int) {
      const int64_t s = item / value_heads_;
      run_head(in, decay, item % value_heads_, batch.first(s), batch.length(s), mixed);
    });
    mixed = pass.normed(path("norm"), {NormKind::rms, pass.norm().eps}, mixed, value_dim_);
    return pass.linear(path("out_proj"), Matrix<T>(mixed.cwiseProduct(silu_of(in.gate))));
  }

 private:
  std::string path(const std::string& name) const { return path_ + "." + name; }
  int64_t keys() const { return key_heads_ * key_dim_; }
  int64_t values() const { return value_heads_ * value_dim_; }

  template <class T>
  Inputs<T> apart(const LayerPass<T>& pass, const Matrix<T>& x) const {
    Inputs<T> out;
    out.qkv = pass.linear(path("in_proj_qkv"), x, 2 * keys() + values());
    out.gate = pass.linear(path("in_proj_z"), x, values());
    out.rate = pass.linear(path("in_proj_b"), x, value_heads_);
    out.step = pass.linear(path("in_proj_a"), x, value_heads_);
    return out;
  }

  // Two Linears whose rows are, key head by key head, [q; k; v; gate] and [rate; step], of that key
  // head's value heads each.
  template <class T>
  Inputs<T> grouped(const LayerPass<T>& pass, const Matrix<T>& x) const {
    const Matrix<T> qkvz = pass.linear(path(qkvz_), x, 2 * keys() + 2 * values());
    const Matrix<T> ba = pass.linear(path(ba_), x, 2 * value_heads_);
    const int64_t each = value_heads_ / key_heads_, width = each * value_dim_;
    Inputs<T> out;
    out.qkv.resize(x.rows(), 2 * keys() + values());
    out.gate.resize(x.rows(), values());
    out.rate.resize(x.rows(), value_heads_);
    out.step.resize(x.rows(), value_heads_);
    for (int64_t g = 0; g < key_heads_; ++g) {
      const auto group = qkvz.middleCols(g * 2 * (key_dim_ + width), 2 * (key_dim_ + width));
      out.qkv.middleCols(g * key_dim_, key_dim_) = group.leftCols(key_dim_);
      out.qkv.middleCols(keys() + g * key_dim_, key_dim_) = group.middleCols(key_dim_, key_dim_);
      out.qkv.middleCols(2 * keys() + g * width, width) = group.middleCols(2 * key_dim_, width);
      out.gate.middleCols(g * width, width) = group.rightCols(width);
      out.rate.middleCols(g * each, each) = ba.middleCols(2 * g * each, each);
      out.step.middleCols(g * each, each) = ba.middleCols((2 * g + 1) * each, each);
    }
    return out;
  }

  // What is left of a state after each token: [tokens, value heads].
  template <class T>
  Matrix<T> decay_of(const LayerPass<T>& pass, const Matrix<T>& step) const {
    const RowVector<T> speed = pass.vector(path("A_log"), value_heads_).array().exp();
    const RowVector<T> bias = pass.vector(path("dt_bias"), value_heads_);
    Matrix<T> out = step.rowwise() + bias;
    for (int64_t t = 0; t < out.rows(); ++t)
      for (int64_t h = 0; h < out.cols(); ++h)
        out(t, h) = std::exp(-speed(h) * softplus(out(t, h)));
    return out;
  }

  // One value head of one sequence, tokens [first, first + length).
  template <class T>
  void run_head(const Inputs<T>& in, const Matrix<T>& decay, int64_t h, int64_t first,
                int64_t length, Matrix<T>& out) const {
    const int64_t key = h / (value_heads_ / key_heads_) * key_dim_;
    const T scale = 1 / std::sqrt(static_cast<T>(key_dim_));
    Matrix<T> state = Matrix<T>::Zero(key_dim_, value_dim_);
    for (int64_t t = first; t < first + length; ++t) {
      const auto row = in.qkv.row(t);
      const RowVector<T> q = unit<T>(row.segment(key, key_dim_));
      const RowVector<T> k = unit<T>(row.segment(keys() + key, key_dim_));
      const auto v = row.segment(2 * keys() + h * value_dim_, value_dim_);
      state *= decay(t, h);
      const RowVector<T> change = (v - k * state) / (T{1} + std::exp(-in.rate(t, h)));
      state.noalias() += k.transpose() * change;
      out.row(t).segment(h * value_dim_, value_dim_) = scale * (q * state);
    }
  }

  std::string path_, qkvz_, ba_;
  int64_t key_heads_, key_dim_, value_heads_, value_dim_;
  CausalConv conv_;
};

}  // namespace

const MixerKind gated_delta_mixer = {"gated_delta", make_mixer_of<GatedDelta>};

}  // namespace moelora
