#include <cmath>
#include <optional>
#include <utility>

#include "lib/forward/attend.h"
#include "lib/forward/mixer.h"
#include "lib/forward/rope.h"
#include "lib/forward/sparse_indexer.h"

namespace moelora {
namespace {

// Multi-head latent attention (DeepSeek-V2 and after): keys and values of all heads are made of one
// latent a token, and beside it stands one key part for all heads, which alone is turned by RoPE.
// Queries may come out of a latent of their own.
class LatentAttention : public MixerOf<LatentAttention> {
 public:
  LatentAttention(const FamilySection& section, int64_t longest)
      : q_(name(section, "q", section.flag("q_latent", true) ? "q_b_proj" : "q_proj")),
        kv_a_(name(section, "kv_a", "kv_a_proj_with_mqa")),
        kv_norm_(name(section, "kv_norm", "kv_a_layernorm")),
        kv_b_(name(section, "kv_b", "kv_b_proj")),
        o_(name(section, "o", "o_proj")),
        heads_(section.size("heads", section.spec().heads)),
        kv_rank_(required(section, "kv_rank")),
        nope_(required(section, "nope")),
        roped_(required(section, "roped")),
        value_dim_(required(section, "value_dim")),
        latent_eps_(section.number("latent_eps", 0)),
        scale_(1 / std::sqrt(static_cast<double>(nope_ + roped_))) {
    section.allow_only({"kind", "layers", "path", "q", "q_latent", "q_a", "q_norm", "kv_a",
                        "kv_norm", "kv_b", "o", "heads", "kv_rank", "nope", "roped", "value_dim",
                        "latent_eps", "rope", "indexer"});
    if (section.flag("q_latent", true)) {
      q_a_ = name(section, "q_a", "q_a_proj");
      q_norm_ = name(section, "q_norm", "q_a_layernorm");
    }
    if (const auto rope = section.find("rope")) {
      rope_ = make_rope(*rope, rope_request(*rope, roped_, longest));
      scale_ *= yarn_score_scale(*rope);
    }
    if (const auto indexer = section.find("indexer")) {
      if (q_a_.empty()) indexer->fail("path", "needs queries out of a latent");
      indexer_.emplace(*indexer, rope_);
    }
  }

  template <class T>
  Matrix<T> compute(const LayerPass<T>& pass, const Matrix<T>& x) const {
    const Matrix<T> latent = q_a_.empty() ? x : normed(pass, q_norm_, pass.linear(q_a_, x));
    Matrix<T> q = pass.linear(q_, latent, heads_ * (nope_ + roped_));
    const Matrix<T> compressed = pass.linear(kv_a_, x, kv_rank_ + roped_);
    Matrix<T> turning = compressed.rightCols(roped_);
    const Matrix<T> kv =
        pass.linear(kv_b_, normed<T>(pass, kv_norm_, compressed.leftCols(kv_rank_)),
                    heads_ * (nope_ + value_dim_));
    if (rope_) {
      const RopeTurns<T> turns(*rope_, pass.batch().longest());
      turn_heads(turns, pass.batch(), nope_ + roped_, nope_, q);
      turn_heads(turns, pass.batch(), roped_, 0, turning);
      pass.round(q);
      pass.round(turning);
    }
    std::optional<Visible> visible;
    if (indexer_) visible = indexer_->choose(pass, x, latent);
    AttendSpec how;
    how.heads = how.kv_heads = heads_;
    how.key_dim = nope_ + roped_;
    how.value_dim = value_dim_;
    how.scale = scale_;
    return pass.linear(
        o_, attend(how, pass, q, keys(kv, turning), values(kv), {}, visible ? &*visible : nullptr));
  }

 private:
  static std::string name(const FamilySection& section, std::string_view key,
                          std::string_view otherwise) {
    return section.text("path", "self_attn") + "." + section.text(key, otherwise);
  }

  static int64_t required(const FamilySection& section, std::string_view key) {
    const int64_t out = section.size(key, 0);
    if (out < 1) section.fail(key, "is not above zero");
    return out;
  }

  template <class T>
  Matrix<T> normed(const LayerPass<T>& pass, const std::string& name, const Matrix<T>& x) const {
    NormSpec norm = pass.norm();
    if (latent_eps_ != 0) norm.eps = latent_eps_;
    return pass.normed(name, norm, x);
  }

  // Columns of kv_b are, head by head, those of the key and those of the value.
  template <class T>
  Matrix<T> keys(const Matrix<T>& kv, const Matrix<T>& turning) const {
    Matrix<T> out(kv.rows(), heads_ * (nope_ + roped_));
    for (int64_t h = 0; h < heads_; ++h) {
      auto head = out.middleCols(h * (nope_ + roped_), nope_ + roped_);
      head.leftCols(nope_) = kv.middleCols(h * (nope_ + value_dim_), nope_);
      head.rightCols(roped_) = turning;
    }
    return out;
  }

  template <class T>
  Matrix<T> values(const Matrix<T>& kv) const {
    Matrix<T> out(kv.rows(), heads_ * value_dim_);
    for (int64_t h = 0; h < heads_; ++h)
      out.middleCols(h * value_dim_, value_dim_) =
          kv.middleCols(h * (nope_ + value_dim_) + nope_, value_dim_);
    return out;
  }

  std::string q_a_, q_norm_, q_, kv_a_, kv_norm_, kv_b_, o_;
  int64_t heads_, kv_rank_, nope_, roped_, value_dim_;
  double latent_eps_;  // of the latents' norms; 0: that of all norms
  double scale_;
  std::optional<Rope> rope_;
  std::optional<SparseIndexer> indexer_;
};

}  // namespace

std::unique_ptr<Mixer> make_latent_attention(const FamilySection& section, int64_t longest) {
  return std::make_unique<LatentAttention>(section, longest);
}

}  // namespace moelora
