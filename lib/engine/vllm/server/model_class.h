#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/engine/release.h"
#include "lib/model/expressions.h"
#include "lib/model/model_spec.h"

namespace moelora::vllm {

// WeightsMapper: names of the adapter as a class spells them.
struct NameMapper {
  Renames substrings, prefixes, suffixes;

  // Substrings, then prefixes, then suffixes, each where it occurs, once.
  std::string map(std::string name) const;
};

// A module of a layer: "mlp.gate", and the base's Linear whose shape it takes.
struct ModuleName {
  std::string name, linear;
};

// Names of one expert's Linears; `gate` is empty where the class has none.
struct ExpertNames {
  std::string gate, up, down;
  std::vector<std::string> all() const;  // those that there are, in this order
};

// How a class builds its layers, by the last component of their names. A name of neither list is
// column-parallel.
struct LayerKinds {
  std::map<std::string, std::vector<std::string>, std::less<>> packed;  // and what they pack
  std::vector<std::string> row, replicated, convolutions;
};

// What one model class of vLLM accepts and wraps. Data: schemas/engines/vllm.json and the families'
// files; vllm.schema.json explains the keys.
struct ModelClass {
  std::string name;  // "GptOssForCausalLM": architectures[0] of the base's config

  // The modules of a layer that LoRA can reach, in the order in which the class builds them, which
  // is the order in which an adapter is copied. A module is there in the layers whose Linears it
  // holds.
  std::vector<ModuleName> modules;
  std::vector<std::string> outside;  // and of those beside the layers, as the class names them
  std::string experts;  // which of the modules are the routed experts: "mlp.experts"; "": dense
  ExpertNames expert_names;
  std::string expert_prefix;  // what get_expert_mapping() puts before "experts.0.": "" is right
  bool stacked = false;       // is_3d_moe_weight: wants gate_up of all experts in one tensor
  bool interleaved = false;   // whose rows are gate's and up's in turn, else halves
  bool embeddings = false;    // embedding_modules has embed_tokens, which takes LoRA then
  bool lm_head = false;       // and lm_head
  bool local_logits = false;  // has compute_logits_local(): each rank samples a part of the batch
  std::vector<std::string> unwrapped;  // Linears that pass the name gate and take no LoRA
  std::vector<std::string> skipped;    // name prefixes that are passed over without a word
  // "language_model.": of a wrapper's text model, whose own names it finds too; else "".
  std::string text_prefix;
  // Its map of experts names each one twice: no adapter with experts has all of them.
  bool experts_named_twice = false;
  std::vector<std::string> split;  // one Linear of the base, whose parts the class takes LoRA on
  NameMapper names;
  LayerKinds kinds;
  // Rows of each buffer of B where one pair is split into several, by the module's last component.
  std::map<std::string, std::vector<Dimension>, std::less<>> slices;
  // Rows of what one Linear holds side by side, whose one B has one buffer.
  std::map<std::string, std::vector<Dimension>, std::less<>> joined;
  // gate_up_proj of dense layers is packed only where this list of the config is not empty; "":
  // always.
  std::string packs_gate_up_with;

  // "TYPE: TEXT" where the server does not start with LoRA in this version; else "".
  std::string start_error;
  bool takes_lora = true;  // false: not in any version, and nothing else of the class is known

  std::vector<std::string> read_in;  // releases whose source says this; none where it was run
  std::string where;                 // FILE:LINE:COLUMN, for messages
};

// The class of the base's config in a version: by architectures[0], or by family where the config
// names none or the family's file brings the class. nullopt when none is known: a class of the
// same family is another class.
std::optional<ModelClass> find_model_class(const ModelSpec& spec, const EngineVersion& version);

// Whether vLLM is known to have no class of this architecture.
bool is_out_of_registry(const ModelSpec& spec);

}  // namespace moelora::vllm
