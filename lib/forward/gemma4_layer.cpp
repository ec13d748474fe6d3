#include "lib/forward/gemma4_layer.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "lib/numeric/moe_forward.h"

namespace moelora {
namespace {

constexpr const char* kInputs = "per_layer_inputs";

void refuse_later_tokens(const FamilySection& family) {
  const auto way = family.config("use_bidirectional_attention");
  if (way && way->json().is(Json::Kind::string) && way->string() == "all")
    way->fail("tokens of this model see later ones: it has no log-probabilities of them");
}

template <class T>
T root(int64_t of) {
  return std::sqrt(static_cast<T>(of));
}

}  // namespace

Gemma4Layer::Gemma4Layer(const FamilySection& family)
    : dense_(nullptr, family, "mlp"),
      activation_(activation_of(family)),
      input_width_(family.size("layer_inputs", 0)),
      input_vocab_(family.size("layer_input_vocab", 0)) {
  if (!family.config("hidden_activation"))  // which is not the activation of other families
    throw Error(family.base().origin, "the key \"hidden_activation\" is missing");
  refuse_later_tokens(family);
  if (family.spec().experts == 0) return;
  const auto router = family.find("router");
  if (!router) family.fail("router", "is missing, and the family has routed experts");
  router_.emplace(*router);
  experts_ = moe_layer(family.spec(), family.base().config);
}

template <class T>
Chosen<T> Gemma4Layer::route(const LayerPass<T>& pass, const Matrix<T>& h) const {
  const RowVector<T> scale = pass.parameter("router.scale", {h.cols()}).row(0) / root<T>(h.cols());
  Chosen<T> out = router_->choose(pass, normalized<T>(pass.norm(), h, scale));
  const RowVector<T> by = pass.parameter("router.per_expert_scale", {experts_.experts}).row(0);
  for (int64_t t = 0; t < out.weights.rows(); ++t)
    for (int64_t k = 0; k < out.weights.cols(); ++k) out.weights(t, k) *= by(out.experts(t, k));
  return out;
}

template <class T>
Matrix<T> Gemma4Layer::feed_forward(const LayerPass<T>& pass, const Matrix<T>& h) const {
  const Matrix<T> dense = dense_.compute(pass, pass.normed("pre_feedforward_layernorm", h));
  if (!router_) return dense;
  const Matrix<T> routed =
      run_experts(experts_, pass, route(pass, h), pass.normed("pre_feedforward_layernorm_2", h));
  return pass.normed("post_feedforward_layernorm_1", dense) +
         pass.normed("post_feedforward_layernorm_2", routed);
}

// (norm(projection of the embedding) + embedding of the layers) / sqrt(2), [tokens, layers *
// width].
template <class T>
void Gemma4Layer::make_inputs(const LayerPass<T>& pass, const Matrix<T>& embedded) const {
  const ModelWeights& weights = pass.weights();
  const int64_t layers = weights.spec().layers;
  const Matrix<T> projected =
      apply_linear(weights.linear("model.per_layer_model_projection"), embedded, pass.threads()) /
      root<T>(embedded.cols());
  const RowVector<T> norm =
      read_matrix<T>(weights.parameter("model.per_layer_projection_norm.weight", {input_width_}))
          .row(0);
  const Matrix<T> pieces = normalized<T>(
      pass.norm(),
      Eigen::Map<const Matrix<T>>(projected.data(), projected.rows() * layers, input_width_), norm);
  Matrix<T> out = Eigen::Map<const Matrix<T>>(pieces.data(), projected.rows(), projected.cols());
  const Tensor table = weights.parameter("model.embed_tokens_per_layer.weight",
                                         {input_vocab_, layers * input_width_});
  for (int64_t t = 0; t < out.rows(); ++t) {
    const int64_t token = pass.batch().tokens[static_cast<size_t>(t)];
    if (token >= input_vocab_)
      throw Error("tokens", fmt::format("token {} is not among the {} that have inputs for layers",
                                        token, input_vocab_));
    out.row(t) += read_matrix<T>(table.slice(0, token, 1)).row(0) * root<T>(input_width_);
  }
  pass.carried()[kInputs] = out / std::numbers::sqrt2_v<T>;
}

template <class T>
Matrix<T> Gemma4Layer::from_input(const LayerPass<T>& pass, const Matrix<T>& h) const {
  const Matrix<T> gate = pass.linear("per_layer_input_gate", h, input_width_);
  const auto input =
      pass.carried().at(kInputs).middleCols(pass.layer() * input_width_, input_width_);
  const Matrix<T> gated =
      gate.binaryExpr(input, [&](T g, T u) { return activate(activation_, g, u); });
  return pass.normed("post_per_layer_input_norm", pass.linear("per_layer_projection", gated));
}

template <class T>
void Gemma4Layer::run(const LayerPass<T>& pass, const Mixer& mixer, Matrix<T>& h) const {
  if (input_width_ != 0 && pass.layer() == 0) make_inputs(pass, h);
  h += pass.normed("post_attention_layernorm", mixer.run(pass, pass.normed("input_layernorm", h)));
  pass.round(h);
  h += pass.normed("post_feedforward_layernorm", feed_forward(pass, h));
  if (input_width_ != 0) h += from_input(pass, h);
  h *= pass.parameter("layer_scalar", {1})(0, 0);
  pass.round(h);
}

template void Gemma4Layer::run(const LayerPass<float>&, const Mixer&, Matrix<float>&) const;
template void Gemma4Layer::run(const LayerPass<double>&, const Mixer&, Matrix<double>&) const;

}  // namespace moelora
