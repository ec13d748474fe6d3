#include "lib/forward/model_plan.h"

#include <fmt/format.h>

namespace moelora {
namespace {

NormSpec norm_of(const FamilySection& family) {
  NormSpec out;
  out.kind = static_cast<NormKind>(family.one_of("norm", {"rms", "rms_one_plus", "layer"}));
  out.eps = family.number("norm_eps", out.eps);
  return out;
}

}  // namespace

ModelPlan::ModelPlan(const BaseModel& base, int64_t longest) : feed_forward_(FamilySection(base)) {
  const FamilySection family(base);
  family.allow_only({"norm", "norm_eps", "norms", "final_norm", "embedding_scale", "residual_scale",
                     "logits_scale", "logits_cap", "mixers", "mlp", "shared", "router",
                     "activation", "layer", "layer_inputs", "layer_input_vocab"});
  norm_ = norm_of(family);
  final_norm_ = family.text("final_norm", "model.norm");
  embedding_scale_ = family.number("embedding_scale", 1);
  residual_scale_ = family.number("residual_scale", 1);
  logits_scale_ = family.number("logits_scale", 1);
  logits_cap_ = family.number("logits_cap", 0);
  norms_ = {"input_layernorm", "", "post_attention_layernorm", ""};
  if (const auto norms = family.find("norms")) {
    norms->allow_only({"before_mixer", "after_mixer", "before_mlp", "after_mlp"});
    norms_ = {norms->text("before_mixer"), norms->text("after_mixer"), norms->text("before_mlp"),
              norms->text("after_mlp")};
  }
  take_mixers(family, longest);
  if (family.one_of("layer", {"usual", "gemma4"}) == 1) gemma4_.emplace(family);
}

void ModelPlan::take_mixers(const FamilySection& family, int64_t longest) {
  constexpr size_t kNone = SIZE_MAX;
  mixer_of_.assign(static_cast<size_t>(family.spec().layers), kNone);
  for (const FamilySection& mixer : family.list("mixers")) {
    const std::vector<bool> layers = mixer.layers("layers", true);
    for (size_t i = 0; i < layers.size(); ++i)
      if (layers[i] && mixer_of_[i] == kNone) mixer_of_[i] = mixers_.size();
    mixers_.push_back(make_mixer(mixer, longest));
  }
  for (size_t i = 0; i < mixer_of_.size(); ++i)
    if (mixer_of_[i] == kNone)
      throw Error(
          family.spec().family_file,
          fmt::format("\"forward\" has no mixer for layer {} of {}", i, family.base().origin));
}

template <class T>
Matrix<T> ModelPlan::normed(const LayerPass<T>& pass, const std::string& name, const Matrix<T>& x) {
  return name.empty() ? x : pass.normed(name, x);
}

template <class T>
void ModelPlan::run_layer(const LayerPass<T>& pass, Matrix<T>& h) const {
  const Mixer& mixer = *mixers_[mixer_of_[static_cast<size_t>(pass.layer())]];
  if (gemma4_) return gemma4_->run(pass, mixer, h);
  const auto scale = static_cast<T>(residual_scale_);
  h += scale *
       normed(pass, norms_.after_mixer, mixer.run(pass, normed(pass, norms_.before_mixer, h)));
  pass.round(h);
  h += scale * normed(pass, norms_.after_mlp,
                      feed_forward_.compute(pass, normed(pass, norms_.before_mlp, h)));
  pass.round(h);
}

template void ModelPlan::run_layer(const LayerPass<float>&, Matrix<float>&) const;
template void ModelPlan::run_layer(const LayerPass<double>&, Matrix<double>&) const;

}  // namespace moelora
