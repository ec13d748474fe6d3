#include <fmt/format.h>

#include <string>

#include "lib/forward/attend.h"
#include "lib/forward/mixer.h"
#include "lib/forward/rope.h"

namespace moelora {
namespace {

template <class T>
struct KeyValue {
  Matrix<T> k, v;
};

// Attention of Gemma 4, for the layers of one type: queries, keys and values have norms, that of
// the values without a weight, and scores no scale. Heads are as wide as the layer's projections
// say. A layer without v_proj has its keys, before their norm, for values; one without k_proj has
// the keys and values of the last layer of its type that makes them.
class Gemma4Attention : public MixerOf<Gemma4Attention> {
 public:
  Gemma4Attention(const FamilySection& section, int64_t longest)
      : section_(section),
        heads_(section.spec().heads),
        window_(static_cast<int64_t>(section.number("window", 0))),
        shares_(section.flag("shares")) {
    section.allow_only({"kind", "layers", "layer_type", "window", "shares"});
    rope_.layer_type = section.text("layer_type");
    const std::string key = "rope_parameters." + rope_.layer_type;
    if (!section.config(key))
      throw Error(section.base().origin,
                  fmt::format("the key \"{}\" is missing, which a {} model needs", key,
                              section.spec().family));
    rope_.longest = longest;
    rope_.dims = section.spec().head_dim;
    make_rope(section_, rope_);  // what is wrong with it is said before any weight is read
  }

  template <class T>
  Matrix<T> compute(const LayerPass<T>& pass, const Matrix<T>& x) const {
    Matrix<T> q = pass.linear("self_attn.q_proj", x);
    AttendSpec how;
    how.heads = heads_;
    how.key_dim = how.value_dim = q.cols() / heads_;
    heads_of(pass, q.cols(), how.key_dim);
    RopeRequest request = rope_;
    request.dims = how.key_dim;
    const RopeTurns<T> turns(make_rope(section_, request), pass.batch().longest());
    q = pass.normed("self_attn.q_norm", q, how.key_dim);
    turn_heads(turns, pass.batch(), how.key_dim, 0, q);
    pass.round(q);
    const KeyValue<T> kv = pass.find_linear("self_attn.k_proj") != nullptr
                               ? make(pass, turns, how.key_dim, x)
                               : shared(pass);
    how.kv_heads = heads_of(pass, kv.k.cols(), how.key_dim);
    how.window = window_;
    return pass.linear("self_attn.o_proj", attend(how, pass, q, kv.k, kv.v));
  }

 private:
  // How many heads of `head_dim` there are in `width` numbers, which share those of the queries.
  template <class T>
  int64_t heads_of(const LayerPass<T>& pass, int64_t width, int64_t head_dim) const {
    const int64_t out = head_dim == 0 ? 0 : width / head_dim;
    if (out != 0 && out * head_dim == width && heads_ % out == 0) return out;
    throw Error(pass.path("self_attn"),
                fmt::format("has projections of {} numbers, and {} heads of {} for its queries",
                            width, heads_, head_dim));
  }

  template <class T>
  KeyValue<T> make(const LayerPass<T>& pass, const RopeTurns<T>& turns, int64_t head_dim,
                   const Matrix<T>& x) const {
    KeyValue<T> out;
    out.k = pass.linear("self_attn.k_proj", x);
    const bool has_v = pass.find_linear("self_attn.v_proj") != nullptr;
    out.v = has_v ? pass.linear("self_attn.v_proj", x) : out.k;
    out.k = pass.normed("self_attn.k_norm", out.k, head_dim);
    turn_heads(turns, pass.batch(), head_dim, 0, out.k);
    pass.round(out.k);
    out.v.resize(out.v.size() / head_dim, head_dim);
    out.v = normalized<T>(pass.norm(), out.v);
    out.v.resize(out.k.rows(), out.k.cols());
    if (shares_) {
      pass.carried()[carried("k")] = out.k;
      pass.carried()[carried("v")] = out.v;
    }
    return out;
  }

  template <class T>
  KeyValue<T> shared(const LayerPass<T>& pass) const {
    const auto k = pass.carried().find(carried("k")), v = pass.carried().find(carried("v"));
    if (k == pass.carried().end() || v == pass.carried().end())
      throw Error(pass.path("self_attn"),
                  "shares keys and values, and no layer of its type before it makes them");
    return {k->second, v->second};
  }

  std::string carried(const char* what) const { return rope_.layer_type + " " + what; }

  FamilySection section_;
  RopeRequest rope_;
  int64_t heads_, window_;
  bool shares_;
};

}  // namespace

std::unique_ptr<Mixer> make_gemma4_attention(const FamilySection& section, int64_t longest) {
  return std::make_unique<Gemma4Attention>(section, longest);
}

}  // namespace moelora
