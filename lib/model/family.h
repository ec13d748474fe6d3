#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lib/base/error.h"
#include "lib/model/expressions.h"
#include "lib/model/model_spec.h"
#include "lib/model/rename.h"

namespace moelora {

// schemas/models/*.json as read: what is the same for every model of a family. The keys are
// explained in schemas/model_spec.schema.json; evaluating them against a config is
// model_builder.h.

// How one value is found in a config: the first of `keys` that is there, else the length of the
// first of `lengths` that is there, else `otherwise`, else the named function (expressions.h).
// Keys may be paths: "attn_config.kv_n_heads".
struct ValueRule {
  std::string name;
  std::vector<std::string> keys, lengths;
  std::optional<Dimension> otherwise;
  const ValueFunction* function = nullptr;
  std::vector<std::string> present;  // instead: 1 where one of these keys is there, else 0
  std::optional<size_t> element;     // of a list of integers that differ
  bool by_layer = false;             // of such a list the layer's; outside the layers 0
  std::string equals;                // instead: 1 where the key's value is this word, else 0
  bool top_first = false;            // a wrapper's own key counts before its text model's
};

// A layer's modules below one path.
struct ModuleBlock {
  struct Linear {
    std::string name;  // below `path`; "" when the path itself is the module
    Dimension out, in;
  };
  std::string path;  // with "{expert}": once for each expert
  Role role = Role::attention;
  struct Condition {
    std::string choice;  // a layer choice's name
    bool is_not = false;
  };
  std::vector<Condition> layers;  // all that hold; none: every layer
  std::string only_if, unless;    // value names: the block is there when non-zero, when zero
  Dimension bias;                 // non-zero: with bias
  bool hub_linear = true, memory_linear = true;
  bool in_hub = true, in_memory = true;  // false: that form has other modules in their place
  std::vector<Linear> linears;
};

// Layers under one path. A model has one stack of them, or an encoder and a decoder.
struct LayerStack {
  std::string path;   // "model.layers.{layer}"
  std::string count;  // the value that says how many
  std::map<std::string, LayerChoice> choices;
  std::vector<ModuleBlock> blocks;
};

// What the module paths of a class begin with.
struct ClassPaths {
  Renames prefixes;                     // {"model", "model.language_model"}
  std::optional<Renames> hub_prefixes;  // where the hub's differ
  bool has_lm_head = true;
};

// One model_type: where its keys are and what its module paths begin with.
struct Variant {
  std::string model_type;
  // The classes of which "architectures" must name one first: other models have this type too.
  // Empty: any, and none.
  std::vector<std::string> only;
  std::string config;  // "text_config"; "" for the config itself
  ClassPaths paths;
  std::map<std::string, ClassPaths> classes;  // instead, where "architectures" names it first
  bool saved_as_memory = false;               // its files are spelled and stored as in memory
  std::optional<ExpertStorage> hub_experts;
  PeftFacts peft;
};

struct Family {
  std::string name, where;  // where: the file, for messages
  // The servers' weight loaders that it was read in, where no model was there to compare it with.
  std::string from_loaders;
  std::vector<Variant> variants;
  std::vector<ValueRule> values;
  std::vector<LayerStack> stacks;  // in the model's order; one where there is an ExpertStorage
  std::string embedding, lm_head;
  Dimension lm_head_bias;
  std::optional<Dimension> lm_head_rows;  // in memory, where the hub's file has `vocab` rows
  std::vector<ModuleBlock> outside;       // of no layer; paths from the model's root
  // Config keys, the first that is there, whose object has other values for some layers: {"1": {}}.
  std::vector<std::string> per_layer;

  // False of dense models, and where experts are Linears (Role::expert): what follows says nothing.
  bool has_experts = true;
  std::string experts_if;  // a value: the model has experts where it is not zero; "" for always
  std::string activation;  // fixed, or ""
  std::vector<std::string> activation_keys;  // config keys to look at
  bool gated = true;
  Dimension expert_bias, idle_experts;
  std::optional<GateUpOrder> gate_up_order = GateUpOrder::halves;  // nullopt: not known
  ExpertStorage hub_experts, memory_experts;                       // stems are paths below a layer

  Renames hub_names;  // in-memory path components and how the hub spells them
  Renames aliases;    // trainers' spellings and the in-memory one

  Json engines;  // servers' classes of this family, as they stand in the file; null for none
  Json forward;  // how its models compute (forward_facts.h), as it stands in the file; null: unsaid
};

// A config whose model_type no family describes. The architecture is its class: "Qwen3ForCausalLM";
// "" where the config names none.
struct UnknownFamily : Error {
  UnknownFamily(const Error& error, std::string architecture);
  std::string architecture;
};

// The families of schemas/models, parsed once, in order of name.
const std::vector<Family>& embedded_families();

// The one of them that describes this model_type of this class (the first of the config's
// "architectures", "" for none), null for none. A variant that is this class's alone comes before
// one for all. Parses few others: a tool's run needs one, and all take longer than a small adapter.
// Safe from any thread.
const Family* embedded_family(const std::string& model_type, const std::string& architecture);

// The variant of a family that has this model_type and takes this class; null for none.
const Variant* find_variant(const Family& family, const std::string& model_type,
                            const std::string& architecture);

// Throws Error that names the place in the document (path, line, column) and what was expected.
Family parse_family(const Json& json, const std::string& where);

}  // namespace moelora
