#pragma once

#include <cstdint>
#include <optional>

#include "lib/forward/feed_forward.h"
#include "lib/forward/mixer.h"

namespace moelora {

// A layer of Gemma 4, whose dense MLP and experts stand beside each other, each with norms of its
// own; both see the residual, and what goes into the router has a norm without a weight.
//
//   h += post_attention_layernorm(mixer(input_layernorm(h)))
//   m  = mlp(pre_feedforward_layernorm(h)); with experts
//   m  = post_feedforward_layernorm_1(m) +
//        post_feedforward_layernorm_2(experts(pre_feedforward_layernorm_2(h), router(h)))
//   h += post_feedforward_layernorm(m); with inputs of its own for each layer
//   h += post_per_layer_input_norm(per_layer_projection(f(per_layer_input_gate(h)) * input))
//   h *= layer_scalar
//
// The inputs of all layers are made at the first one, of the tokens and their embeddings.
class Gemma4Layer {
 public:
  // Throws Error at the config for what it lacks, and for a model that looks at later tokens.
  explicit Gemma4Layer(const FamilySection& family);

  template <class T>
  void run(const LayerPass<T>& pass, const Mixer& mixer, Matrix<T>& h) const;

 private:
  template <class T>
  Matrix<T> feed_forward(const LayerPass<T>& pass, const Matrix<T>& h) const;
  template <class T>
  Chosen<T> route(const LayerPass<T>& pass, const Matrix<T>& h) const;
  template <class T>
  void make_inputs(const LayerPass<T>& pass, const Matrix<T>& embedded) const;
  template <class T>
  Matrix<T> from_input(const LayerPass<T>& pass, const Matrix<T>& h) const;

  GatedMlp dense_;
  std::optional<Router> router_;
  MoeLayer experts_, activation_;
  int64_t input_width_, input_vocab_;  // of the inputs of each layer; 0: the model has none
};

}  // namespace moelora
