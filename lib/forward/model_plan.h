#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/forward/family_section.h"
#include "lib/forward/feed_forward.h"
#include "lib/forward/gemma4_layer.h"
#include "lib/forward/mixer.h"

namespace moelora {

// How the layers of one base model compute: its family's "forward" against its config, before any
// weight is looked at.
//
//   h   = embedding(token) * embedding_scale
//   h  += residual_scale * after_mixer(mixer(before_mixer(h)))     each layer; a norm that the
//   h  += residual_scale * after_mlp(mlp(before_mlp(h)))           family does not have is left out
//                                             or as "layer" names it (gemma4_layer.h)
//   logits = head(final_norm(h)) * logits_scale, then cap * tanh(logits / cap)
class ModelPlan {
 public:
  // `longest`: of the sequences to come. Throws Error for a family without a section "forward", and
  // at the config for what it lacks.
  ModelPlan(const BaseModel& base, int64_t longest);

  const NormSpec& norm() const { return norm_; }
  double embedding_scale() const { return embedding_scale_; }
  double logits_scale() const { return logits_scale_; }
  double logits_cap() const { return logits_cap_; }
  const std::string& final_norm() const { return final_norm_; }

  // h [tokens, hidden] after the layer.
  template <class T>
  void run_layer(const LayerPass<T>& pass, Matrix<T>& h) const;

 private:
  struct Norms {
    std::string before_mixer, after_mixer, before_mlp, after_mlp;
  };
  template <class T>
  static Matrix<T> normed(const LayerPass<T>& pass, const std::string& name, const Matrix<T>& x);
  void take_mixers(const FamilySection& family, int64_t longest);

  NormSpec norm_;
  Norms norms_;
  std::string final_norm_;
  double embedding_scale_, residual_scale_, logits_scale_, logits_cap_;
  std::vector<std::unique_ptr<Mixer>> mixers_;
  std::vector<size_t> mixer_of_;  // by layer
  FeedForward feed_forward_;
  std::optional<Gemma4Layer> gemma4_;
};

}  // namespace moelora
