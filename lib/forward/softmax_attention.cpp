#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "lib/forward/attend.h"
#include "lib/forward/mixer.h"
#include "lib/forward/rope.h"

namespace moelora {
namespace {

// q, k and v of one layer, [tokens, heads * head_dim].
template <class T>
struct QueryKeyValue {
  Matrix<T> q, k, v, gate;  // gate: of the output, where q_proj has one
  int64_t head_dim = 0;
};

const std::initializer_list<std::string_view> kKeys = {"kind",
                                                       "layers",
                                                       "path",
                                                       "q",
                                                       "k",
                                                       "v",
                                                       "o",
                                                       "qkv",
                                                       "heads",
                                                       "scale",
                                                       "score_cap",
                                                       "clip",
                                                       "output_gate",
                                                       "rope",
                                                       "rope_layers",
                                                       "window_layers",
                                                       "chunk_layers",
                                                       "window",
                                                       "chunk",
                                                       "norm_over",
                                                       "norm_after_rope",
                                                       "q_norm",
                                                       "k_norm",
                                                       "norm_if",
                                                       "norm_unweighted",
                                                       "temperature",
                                                       "sinks"};

enum class NormOver : uint8_t { head, all };

// Softmax attention with one key and value for a group of query heads.
class SoftmaxAttention : public MixerOf<SoftmaxAttention> {
 public:
  SoftmaxAttention(const FamilySection& section, int64_t longest)
      : path_(section.text("path", "self_attn")),
        q_(name(section, "q", "q_proj")),
        k_(name(section, "k", "k_proj")),
        v_(name(section, "v", "v_proj")),
        o_(name(section, "o", "o_proj")),
        heads_(section.size("heads", section.spec().heads)),
        scale_(section.number("scale", 0)),
        cap_(section.number("score_cap", 0)),
        clip_(section.number("clip", 0)),
        has_gate_(section.flag("output_gate")),
        roped_(section.layers("rope_layers", true)),
        windowed_(section.layers("window_layers", false)),
        chunked_(section.layers("chunk_layers", false)),
        window_(static_cast<int64_t>(section.number("window", 0))),
        chunk_(static_cast<int64_t>(section.number("chunk", 0))),
        norm_over_(static_cast<NormOver>(section.one_of("norm_over", {"head", "all"}))),
        norm_after_rope_(section.flag("norm_after_rope")),
        rope_(rope_of(section, longest)) {
    section.allow_only(kKeys);
    if (!section.text("qkv").empty()) qkv_ = name(section, "qkv", "");
    if (const auto tuning = section.find("temperature")) take_temperature(*tuning);
    has_plain_norm_ = section.flag("norm_if", true) && section.flag("norm_unweighted");
    if (section.flag("norm_if", true) && !section.text("q_norm").empty()) {
      q_norm_ = name(section, "q_norm", "");
      k_norm_ = name(section, "k_norm", "");
    }
    if (!section.text("sinks").empty()) sinks_ = name(section, "sinks", "");
  }

  template <class T>
  Matrix<T> compute(const LayerPass<T>& pass, const Matrix<T>& x) const {
    const auto layer = static_cast<size_t>(pass.layer());
    QueryKeyValue<T> parts = qkv_.empty() ? apart(pass, x) : from_joined(pass, x);
    if (!norm_after_rope_) norm(pass, parts);
    if (clip_ != 0) clip(parts);
    if (roped_[layer]) turn(pass, parts);
    if (norm_after_rope_) norm(pass, parts);
    if (has_plain_norm_ && roped_[layer]) norm_plain(pass, parts);
    if (temperature_floor_ != 0 && !roped_[layer]) tune(pass, parts.q);
    AttendSpec how;
    how.heads = heads_;
    how.key_dim = how.value_dim = parts.head_dim;
    how.kv_heads = parts.k.cols() / parts.head_dim;
    how.scale = scale_ != 0 ? scale_ : 1 / std::sqrt(static_cast<double>(parts.head_dim));
    how.cap = cap_;
    if (windowed_[layer]) how.window = window_;
    if (chunked_[layer]) how.chunk = chunk_;
    RowVector<T> sinks;
    if (!sinks_.empty()) sinks = pass.vector(sinks_, heads_);
    Matrix<T> mixed = attend(how, pass, parts.q, parts.k, parts.v, sinks);
    if (has_gate_) mixed.array() /= T{1} + (-parts.gate.array()).exp();
    return pass.linear(o_, mixed);
  }

 private:
  static std::string name(const FamilySection& section, std::string_view key,
                          std::string_view otherwise) {
    return section.text("path", "self_attn") + "." + section.text(key, otherwise);
  }

  void take_temperature(const FamilySection& section) {
    section.allow_only({"floor", "scale", "if"});
    if (!section.flag("if", true)) return;
    temperature_floor_ = section.number("floor", 0);
    temperature_scale_ = section.number("scale", 0);
  }

  static std::optional<Rope> rope_of(const FamilySection& section, int64_t longest) {
    const auto rope = section.find("rope");
    if (!rope) return std::nullopt;
    return make_rope(*rope, rope_request(*rope, section.spec().head_dim, longest));
  }

  template <class T>
  QueryKeyValue<T> apart(const LayerPass<T>& pass, const Matrix<T>& x) const {
    QueryKeyValue<T> out;
    out.q = pass.linear(q_, x);
    out.k = pass.linear(k_, x);
    out.v = pass.linear(v_, x);
    out.head_dim = out.q.cols() / heads_ / (has_gate_ ? 2 : 1);
    if (has_gate_) split_gate(out);
    return out;
  }

  // Rows of q_proj are, head by head, those of the query and those of the gate.
  template <class T>
  void split_gate(QueryKeyValue<T>& parts) const {
    const Matrix<T> both = std::move(parts.q);
    const int64_t d = parts.head_dim;
    parts.q.resize(both.rows(), heads_ * d);
    parts.gate.resize(both.rows(), heads_ * d);
    for (int64_t h = 0; h < heads_; ++h) {
      parts.q.middleCols(h * d, d) = both.middleCols(2 * h * d, d);
      parts.gate.middleCols(h * d, d) = both.middleCols((2 * h + 1) * d, d);
    }
  }

  // q, then k, then v.
  template <class T>
  QueryKeyValue<T> from_joined(const LayerPass<T>& pass, const Matrix<T>& x) const {
    const Matrix<T> all = pass.linear(qkv_, x);
    const ModelSpec& spec = pass.weights().spec();
    QueryKeyValue<T> out;
    out.head_dim = spec.head_dim;
    const int64_t q = heads_ * out.head_dim, kv = spec.kv_heads * out.head_dim;
    out.q = all.leftCols(q);
    out.k = all.middleCols(q, kv);
    out.v = all.rightCols(kv);
    return out;
  }

  template <class T>
  void norm(const LayerPass<T>& pass, QueryKeyValue<T>& parts) const {
    if (q_norm_.empty()) return;
    const int64_t width = norm_over_ == NormOver::all ? 0 : parts.head_dim;
    parts.q = pass.normed(q_norm_, parts.q, width);
    parts.k = pass.normed(k_norm_, parts.k, width);
  }

  // Llama 4: no weight, and in layers with RoPE alone.
  template <class T>
  void norm_plain(const LayerPass<T>& pass, QueryKeyValue<T>& parts) const {
    NormSpec plain = pass.norm();
    plain.kind = NormKind::rms;
    for (Matrix<T>* m : {&parts.q, &parts.k}) {
      const Matrix<T> heads =
          Eigen::Map<const Matrix<T>>(m->data(), m->size() / parts.head_dim, parts.head_dim);
      const Matrix<T> normed = normalized(plain, heads);
      *m = Eigen::Map<const Matrix<T>>(normed.data(), m->rows(), m->cols());
    }
  }

  // Queries grow with the logarithm of their position, in layers without RoPE (Llama 4).
  template <class T>
  void tune(const LayerPass<T>& pass, Matrix<T>& q) const {
    const Batch& batch = pass.batch();
    for (int64_t s = 0; s < batch.sequences(); ++s)
      for (int64_t i = 0; i < batch.length(s); ++i) {
        const double step = std::floor(static_cast<double>(i + 1) / temperature_floor_);
        q.row(batch.first(s) + i) *= static_cast<T>(std::log1p(step) * temperature_scale_ + 1);
      }
  }

  // OLMo's clip_qkv.
  template <class T>
  void clip(QueryKeyValue<T>& parts) const {
    const auto most = static_cast<T>(clip_);
    for (Matrix<T>* m : {&parts.q, &parts.k, &parts.v}) *m = m->cwiseMax(-most).cwiseMin(most);
  }

  template <class T>
  void turn(const LayerPass<T>& pass, QueryKeyValue<T>& parts) const {
    if (!rope_) return;
    const RopeTurns<T> turns(*rope_, pass.batch().longest());
    for (Matrix<T>* m : {&parts.q, &parts.k}) {
      turn_heads(turns, pass.batch(), parts.head_dim, 0, *m);
      pass.round(*m);
    }
  }

  std::string path_, q_, k_, v_, o_, qkv_, q_norm_, k_norm_, sinks_;
  int64_t heads_;
  double scale_, cap_, clip_;
  bool has_gate_;
  std::vector<bool> roped_, windowed_, chunked_;
  int64_t window_, chunk_;
  NormOver norm_over_;
  bool norm_after_rope_, has_plain_norm_ = false;
  double temperature_floor_ = 0, temperature_scale_ = 0;  // 0: none
  std::optional<Rope> rope_;
};

}  // namespace

std::unique_ptr<Mixer> make_softmax_attention(const FamilySection& section, int64_t longest) {
  return std::make_unique<SoftmaxAttention>(section, longest);
}

}  // namespace moelora
