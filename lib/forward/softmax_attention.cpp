#include <algorithm>
#include <cmath>
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
        has_gate_(section.flag("output_gate")),
        roped_(section.layers("rope_layers", true)),
        windowed_(section.layers("window_layers", false)),
        chunked_(section.layers("chunk_layers", false)),
        window_(static_cast<int64_t>(section.number("window", 0))),
        chunk_(static_cast<int64_t>(section.number("chunk", 0))),
        norm_over_(static_cast<NormOver>(section.one_of("norm_over", {"head", "all"}))),
        norm_after_rope_(section.flag("norm_after_rope")),
        ropes_(make_ropes(section, longest)),
        rope_of_(rope_of_layers(section)) {
    section.allow_only({"kind",
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
                        "output_gate",
                        "rope",
                        "rope_layers",
                        "rope_types",
                        "window_layers",
                        "chunk_layers",
                        "window",
                        "chunk",
                        "norm_over",
                        "norm_after_rope",
                        "q_norm",
                        "k_norm",
                        "norm_if",
                        "sinks"});
    if (!section.text("qkv").empty()) qkv_ = name(section, "qkv", "");
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
    if (roped_[layer]) turn(pass, parts);
    if (norm_after_rope_) norm(pass, parts);
    AttendSpec how;
    how.heads = heads_;
    how.key_dim = how.value_dim = parts.head_dim;
    how.kv_heads = parts.k.cols() / parts.head_dim;
    how.scale = scale_ != 0 ? scale_ : 1 / std::sqrt(static_cast<double>(parts.head_dim));
    how.cap = cap_;
    if (windowed_[layer]) how.window = window_;
    if (chunked_[layer]) how.chunk = chunk_;
    RowVector<T> sinks;
    if (!sinks_.empty()) sinks = pass.parameter(sinks_, {heads_}).row(0);
    Matrix<T> mixed = attend(how, pass, parts.q, parts.k, parts.v, sinks);
    if (has_gate_) mixed.array() /= T{1} + (-parts.gate.array()).exp();
    return pass.linear(o_, mixed);
  }

 private:
  static std::string name(const FamilySection& section, std::string_view key,
                          std::string_view otherwise) {
    return section.text("path", "self_attn") + "." + section.text(key, otherwise);
  }

  static RopeRequest rope_request(const FamilySection& rope, int64_t longest) {
    rope.allow_only({"pairs", "theta", "theta_key", "dims", "rotated"});
    RopeRequest out;
    out.dims = rope.size("dims", rope.spec().head_dim);
    out.pairs = static_cast<RopePairs>(rope.one_of("pairs", {"halves", "interleaved"}));
    out.theta = rope.number("theta", out.theta);
    out.theta_key = rope.text("theta_key", out.theta_key);
    if (const int64_t rotated = rope.size("rotated", 0)) out.rotated = rotated;
    out.longest = longest;
    return out;
  }

  // One for all layers, or one for each type of layer that the config tells apart.
  static std::vector<Rope> make_ropes(const FamilySection& section, int64_t longest) {
    const auto rope = section.find("rope");
    if (!rope) return {};
    RopeRequest request = rope_request(*rope, longest);
    return {make_rope(*rope, request)};
  }

  static std::vector<size_t> rope_of_layers(const FamilySection& section) {
    return std::vector<size_t>(static_cast<size_t>(section.spec().layers), 0);
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

  template <class T>
  void turn(const LayerPass<T>& pass, QueryKeyValue<T>& parts) const {
    if (ropes_.empty()) return;
    const Batch& batch = pass.batch();
    const RopeTurns<T> turns(ropes_[rope_of_[static_cast<size_t>(pass.layer())]], batch.longest());
    for (Matrix<T>* m : {&parts.q, &parts.k})
      for (int64_t s = 0; s < batch.sequences(); ++s)
        for (int64_t i = 0; i < batch.length(s); ++i)
          for (int64_t at = 0; at < m->cols(); at += parts.head_dim)
            turns.apply(i, m->row(batch.first(s) + i).data() + at);
  }

  std::string path_, q_, k_, v_, o_, qkv_, q_norm_, k_norm_, sinks_;
  int64_t heads_;
  double scale_, cap_;
  bool has_gate_;
  std::vector<bool> roped_, windowed_, chunked_;
  int64_t window_, chunk_;
  NormOver norm_over_;
  bool norm_after_rope_;
  std::vector<Rope> ropes_;
  std::vector<size_t> rope_of_;
};

}  // namespace

std::unique_ptr<Mixer> make_softmax_attention(const FamilySection& section, int64_t longest) {
  return std::make_unique<SoftmaxAttention>(section, longest);
}

}  // namespace moelora
