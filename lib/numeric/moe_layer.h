#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string_view>
#include <vector>

#include "lib/adapter/adapter.h"
#include "lib/model/model_spec.h"
#include "lib/numeric/base_weights.h"

namespace moelora {

// What one MoE layer with LoRA computes; every forward of this project is measured against this.
//
// Sizes: E experts of inner width I ("intermediate"), input and output width H ("width"), T tokens
// that each choose K experts ("top_k"). A pair is one choice: pair p = t * K + k is token t's k-th
// expert e with router weight w. Matrices are row-major and act as y = W x, W [out, in].
//
//   x_p = x_t                                      w x_t where the router weighs the input
//   g   = Wg_e x_p + bg_e + s B (A x_p)            gate [I]; absent where experts are not gated
//   u   = Wu_e x_p + bu_e + s B (A x_p)            up [I], with factors and scale of its own
//   h   = f(g) * u   or, not gated,   f(u)         [I], see Activation
//   d   = Wd_e h + bd_e + s B (A h)                down [H]
//   y_t = routed_scaling * sum_k w d_p             without w where the router weighs the input
//
// The sum runs over k in order. Biases are inside f and inside the weighted sum. The delta goes in
// before the activation's limits. A shared outer factor (Factor::shared) is one A or B for all E.
// This is what a trainer means, and what SGLang's triton runner (fused_moe.py
// _fused_moe_kernel_sequence, lora_moe_runners.py) and vLLM's fused_moe_lora compute up to the
// rounding of s B, A x and delta to the model's type, with one exception: where the router weighs
// the input (Llama 4), both leave w out of gate's and up's delta and put it on down's.

enum class Activation : uint8_t {
  silu,            // f(g) = g / (1 + exp(-g))
  gelu,            // f(g) = g / 2 (1 + erf(g / sqrt 2))
  gelu_tanh,       // the tanh form of gelu
  relu2,           // f(g) = max(g, 0)^2
  gpt_oss_swiglu,  // h = g / (1 + exp(-alpha g)) * (u + 1)
};

// By the name that configs (hidden_act) and family files use; nullopt for others.
std::optional<Activation> activation_from_name(std::string_view name);

enum class RouterWeight : uint8_t { output, input };

struct MoeLayer {
  int64_t experts = 0, width = 0, intermediate = 0;
  bool gated = true;
  Activation activation = Activation::silu;
  double alpha = 1.702;  // of gpt_oss_swiglu
  // Gated experts: g is cut to at most this, u to at most this in magnitude, before f.
  double limit = std::numeric_limits<double>::infinity();
  RouterWeight router_weight = RouterWeight::output;
  double routed_scaling = 1;

  int64_t out_dim(Projection p) const { return p == Projection::down ? width : intermediate; }
  int64_t in_dim(Projection p) const { return p == Projection::down ? intermediate : width; }
  std::vector<Projection> inner() const;        // {gate, up}, or {up} where experts are not gated
  std::vector<Projection> projections() const;  // inner() and down
};

// The routed experts of a base model. `config` is its config.json: swiglu_limit (gpt-oss: 7 where
// absent). Router weights are taken as given: routed_scaling is 1, and a family's
// routed_scaling_factor belongs into them or is set by the caller. Throws Error at an activation
// that is none of the above.
MoeLayer moe_layer(const ModelSpec& spec, const Json& config);

// The layer that an adapter's factors fit, where no base model says what it is: SwiGLU, gated if
// gate is adapted. Throws Error without experts, or where only sizes of one side are known.
MoeLayer layer_of(const Adapter& adapter);

// LoRA of one layer's routed experts: gate, up and down, each or none. A [r, in], B [out, r], any
// rank, other ranks for other experts and none for some (see Factor). A gate_up pair has been split
// (lib/adapter/gate_up.h).
using LayerLora = std::map<Projection, ExpertPair>;

// Of the pairs of an adapter that was split; empty where the layer has none.
LayerLora layer_lora(const Adapter& adapter, int layer);

struct MoeWeights {
  BaseWeights base;
  LayerLora lora;
};

// Throws Error that names the expert and the projection unless every matrix, bias and factor has
// the shape that the layer says, and both factors of an expert the same rank.
void check_weights(const MoeWeights& weights, const MoeLayer& layer);

// Which experts each token chose, and with what weight; both [T, K], row-major. Expert -1 is no
// choice (a server's padding, an expert of another rank) and adds nothing.
struct Routing {
  int64_t tokens = 0, top_k = 0;
  std::vector<int32_t> experts;
  std::vector<float> weights;

  int64_t pairs() const { return tokens * top_k; }
  Routing part(int64_t first, int64_t count) const;  // of tokens [first, first + count)
};

// Throws Error at `where` unless sizes agree and experts are in [-1, E).
void check_routing(const Routing& routing, const MoeLayer& layer, std::string_view where);

// The pairs of each chosen expert, experts and pairs in order. A pair of expert -1 is in none.
struct ExpertGroup {
  int64_t expert;
  std::vector<int64_t> pairs;
};
std::vector<ExpertGroup> group_by_expert(const Routing& routing);

}  // namespace moelora
