#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/base/tensor.h"
#include "lib/io/json.h"
#include "lib/model/rename.h"

namespace moelora {

struct ForwardFacts;  // lib/model/forward_facts.h

// A weight of one expert. `gate_up` is gate and up stored as one matrix of 2I rows, in the order
// (halves or interleaved) that the model family uses. A non-gated expert has up and down only.
enum class Projection : uint8_t { gate, up, gate_up, down };
std::string_view projection_name(Projection projection);  // "gate_proj", ..., "gate_up_proj"

// Where names and shapes are looked at: as the hub file spells them (what transformers 4 used and
// every version saves), or as transformers 5 holds them in memory (what PEFT wraps today).
enum class Form : uint8_t { hub, memory };

// Order of the 2I rows (or columns) of a fused gate_up: [gate; up], or g0,u0,g1,u1 (gpt-oss).
enum class GateUpOrder : uint8_t { halves, interleaved };

// Axes of a batched expert parameter after the expert axis: [E, in, out] or [E, out, in]. `rows`:
// the parameter has two dims, [E*I, hidden], and an expert's are I rows of it in a run: those of
// gate and of up [out, in], those of down [in, out], which is not transposed (DBRX).
enum class ExpertAxes : uint8_t { in_out, out_in, rows };

enum class Role : uint8_t {
  attention,      // q/k/v/o and MLA projections
  mixer,          // linear attention, mamba, short convolution projections
  dense_mlp,      // MLP of a dense layer, or one alongside the experts
  shared_expert,  // MLP every token passes in a MoE layer
  shared_expert_gate,
  router,
  lm_head,
  embedding,
  expert,  // a routed expert's that is a Linear of its own in every form: nllb-moe, Switch
};
std::string_view role_name(Role role);

// A 2-D weight that an adapter can target: y = W x with W [out, in]. The embedding is one with
// in = vocab and out = hidden, whose weight is stored the other way round, [in, out].
struct LinearSpec {
  std::string hub, memory;  // module paths, e.g. "model.layers.0.self_attn.q_proj"
  Role role;
  int layer;  // -1 outside the layers; the decoder's are counted on from the encoder's
  int64_t in, out;
  bool bias;
  bool hub_linear, memory_linear;  // an nn.Linear there (else a bare Parameter `weight`)
  // False where a form has other modules in its place: gate and up in one, or of another size. Both
  // names are then those of the form that has it.
  bool in_hub = true, in_memory = true;

  bool is_in(Form form) const { return form == Form::hub ? in_hub : in_memory; }
};

// How the routed experts of a family are stored in one form.
struct ExpertStorage {
  bool numbered;     // experts.{e}.w1.weight (a 2-D weight each) rather than one batched tensor
  std::string stem;  // with "{layer}": "model.layers.{layer}.mlp.experts"
  // Names below the stem. numbered: "w1"/"w3"/"w2" in {stem}.{e}.NAME.weight; batched: the
  // parameter {stem}.NAME. `gate` is empty for non-gated experts and for a fused gate_up.
  std::string gate, up, gate_up, down;
  ExpertAxes axes;                        // of the batched tensors
  std::optional<GateUpOrder> order = {};  // of its gate_up, where it is not the spec's
};

// What PEFT and transformers 5 do with the experts of a model_type (lib/engine/peft/peft.h).
struct PeftFacts {
  bool converts = false;  // PEFT >= 0.19 turns numbered experts' pairs into batched parameters'
  bool maps = false;      // it rewrites the tensors' names: those that it converts, and more
  bool is_transposed = false;      // the class marks its parameters as [E, in, out]
  bool numbered = false;           // its own code keeps a Linear for each expert
  std::string batched_since = {};  // the transformers that holds them as `memory` says; "": 5
  std::string router_since = {};   // the transformers whose router is no Linear; "": as `memory`
  std::vector<std::string> refuses = {};  // modules that PEFT does not adapt in this type
  bool unknown = false;  // of its modules some are not known, a tower's, or their new names
};

// Family data x one config.json: everything a conversion or a check must know of a base model.
// The only place that knows how configs spell their keys.
class ModelSpec {
 public:
  // Compiled once in the source file rather than in every file that uses it.
  ModelSpec();
  ModelSpec(const ModelSpec&);
  ModelSpec(ModelSpec&&) noexcept;
  ModelSpec& operator=(const ModelSpec&);
  ModelSpec& operator=(ModelSpec&&) noexcept;
  ~ModelSpec();

  std::string family;        // "gpt_oss": the file name in schemas/models
  std::string model_type;    // as the config says
  std::string architecture;  // architectures[0], "" when absent
  int64_t layers = 0, hidden = 0, vocab = 0;
  bool has_encoder = false;  // an encoder's layers, then the decoder's
  bool tied_embeddings = false;
  // Of softmax attention; 0 where the family's file does not say. attention_heads() of
  // lib/model/attention_heads.h asks for all three.
  int64_t heads = 0, kv_heads = 0, head_dim = 0;

  // Routed experts that have a storage, which is of all experts of a layer; those that are Linears
  // (Role::expert) are among `linears` alone, and leave these as they are of a dense model.
  // `experts` is E, `expert_in` the input width (hidden, or the latent size of a
  // latent MoE), `intermediate` is I.
  int64_t experts = 0, top_k = 0, expert_in = 0, intermediate = 0;
  bool gated = true;
  bool expert_bias = false;  // gate_up_proj_bias, down_proj_bias (gpt-oss)
  // Of fused gate and up; nullopt: neither the family's file nor the checkpoint says it.
  std::optional<GateUpOrder> gate_up_order = GateUpOrder::halves;
  // Experts that are never run, for which a batched gate and up has room behind those of all
  // others, and down has not (LongCat's zero experts).
  int64_t idle_experts = 0;
  std::string activation;        // "silu", "gpt_oss_swiglu", "gelu", "relu2"
  std::vector<bool> moe_layers;  // one entry per layer
  ExpertStorage hub, memory;
  bool hub_mxfp4 = false;  // quantization_config says the hub experts are MXFP4

  // Every targetable 2-D module: the embedding, the layers in order, lm_head.
  std::vector<LinearSpec> linears;

  PeftFacts peft;

  Renames aliases;  // of normalised(), in order, at component boundaries

  // By the names and shapes of a checkpoint: how transformers holds numbered experts is not known.
  bool derived = false;

  // What the family's file says of servers' classes, {ENGINE: [..]}, for lib/engine/server_class.h;
  // null for nothing. `family_file` names the file, for messages.
  Json engines;
  std::string family_file;

  // Of lib/forward; null where the family's file does not say how the model computes.
  std::shared_ptr<const ForwardFacts> forward;

  bool is_moe(int layer) const {
    return layer >= 0 && layer < static_cast<int>(moe_layers.size()) &&
           moe_layers[static_cast<size_t>(layer)];
  }
  const ExpertStorage& storage(Form form) const { return form == Form::hub ? hub : memory; }
  std::string expert_stem(Form form, int layer) const;  // "model.layers.3.mlp.experts"

  // Rows x columns of one expert's weight: gate/up [I, in], gate_up [2I, in], down [in, I].
  int64_t out_dim(Projection p) const;
  int64_t in_dim(Projection p) const;
  // The extent of the expert axis of a batched parameter.
  int64_t batched_experts(Projection p) const;
  // The shape of the batched parameter that a storage has for a projection, idle experts included.
  Shape parameter_shape(const ExpertStorage& storage, Projection p) const;

  // The path, with "{layer}", below which adapters name the experts' factors: that of the storage,
  // and "experts" below it where the model has no module of that name (JetMoe).
  std::string factor_stem(Form form) const;

  bool has_linear_experts() const;  // of Role::expert

  // The Linear at this module path, in either form; null when there is none.
  const LinearSpec* find_linear(std::string_view module) const;

  // Trainers' other names for this family's modules: ".attn." for ".self_attn." and
  // "unembed_tokens" for "lm_head". Returns the in-memory spelling; unknown names unchanged.
  std::string normalised(std::string module) const;

  // Every Linear's and every expert tensor's name and shape in one form, as a checkpoint or a
  // state dict lists them ("....weight", biases of both included).
  std::vector<std::pair<std::string, Shape>> tensors(Form form) const;

  // Makes find_linear() fast; call after changing `linears`.
  void index_linears();

 private:
  std::map<std::string, size_t, std::less<>> by_module_;
};

// The order, where an operation cannot do without. Throws Error that says how to tell it.
GateUpOrder required_gate_up_order(const ModelSpec& spec);
GateUpOrder required_gate_up_order(const ModelSpec& spec, const ExpertStorage& storage);

// What a storage calls one projection, e.g. {up, "w3"}.
struct StoredProjection {
  Projection projection;
  std::string name;
};

// The projections that are stored apart, gate and up before down; a fused gate_up is one.
std::vector<StoredProjection> stored_projections(const ExpertStorage& storage);

// Storage with a 2-D weight per expert: the hub's own where it is such, else
// STEM.{e}.gate_proj|up_proj|down_proj below the stem of memory's factors.
ExpertStorage per_expert_storage(const ModelSpec& spec);

// Storage with batched parameters: the hub's own where it is such (gpt-oss, Llama 4, Qwen3-VL,
// Granite), else the in-memory one of transformers 5.
ExpertStorage fused_storage(const ModelSpec& spec);

// "model.layers.{layer}" of "model.layers.{layer}.mlp.experts".
std::string layer_stem(const ModelSpec& spec);

// The layer number of "model.layers.7.mlp.experts.gate_up_proj" for a stem with "{layer}", and what
// follows the stem and its dot; layer -1 when the name does not begin with the stem.
std::pair<int, std::string> split_stem(const std::string& name, const std::string& stem);

}  // namespace moelora
