#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "lib/adapter/adapter.h"
#include "lib/adapter/dialect.h"

namespace moelora {

// What the dialects of Megatron's trainers share: its modules as those of a base model.
//
// Megatron joins projections of one input: linear_qkv and linear_fc1. The lora_A of a joined module
// is that of each of its projections; the rows of its lora_B are theirs by turns:
//   linear_qkv  [q of group 0; k of 0; v of 0; q of 1; ...], a group a key-value head
//   linear_fc1  [gate; up], and so of each tensor-parallel rank where several are joined
// (Megatron-LM, core/transformer/attention.py and mlp.py; Megatron-Bridge, param_mapping.py).
struct MegatronModule {
  struct Part {
    std::string hub;  // its module; of routed experts the leaf below them: "gate_proj"
    int64_t rows;
  };
  std::string path;         // in Megatron: "decoder.layers.0.mlp.linear_fc1"
  std::vector<Part> parts;  // in the order of their rows
  int64_t in = 0;
  int64_t groups = 1;        // the rows of all parts come in so many turns
  bool cut_by_rank = false;  // each tensor-parallel rank holds turns of its own: linear_fc1
  // The rows of q in a turn are [q of each head; gate of each head], and the hub has [q; gate] of
  // each head: so many rows has a head. 0: as they are.
  int64_t gated_head = 0;
  int64_t experts = 0;  // of routed experts: how many
  std::string stem;     // theirs: "model.layers.3.mlp.experts"

  int64_t rows() const;
};

// In which order linear_qkv has the rows of q and its output gate, where the base model has one
// (Qwen3-Next, Qwen3.5): as the hub, [q; gate] of each head, or as Megatron-LM, [q; gate] of each
// group.
enum class GateRows : uint8_t { by_head, by_group };

class MegatronModules {
 public:
  // `spec` must outlive it.
  MegatronModules(const ModelSpec& spec, GateRows gate);

  // `path`: "decoder.layers.0.mlp.linear_fc1", "output_layer". Throws Error at tensor `name` for
  // one that has no counterpart in the base model.
  const MegatronModule& find(const std::string& name, std::string_view path);

 private:
  using Key = std::tuple<int, Role, std::string>;

  const LinearSpec* linear(int layer, Role role,
                           std::initializer_list<std::string_view> leaves) const;
  MegatronModule make(const std::string& name, std::string_view path) const;
  bool add_whole(int layer, std::string_view below, MegatronModule& out) const;
  bool add_fc1(int layer, std::string_view below, MegatronModule& out) const;
  bool add_experts(const std::string& name, int layer, std::string_view below,
                   MegatronModule& out) const;
  bool add_router(int layer, MegatronModule& out) const;
  void add_qkv(const std::string& name, int layer, MegatronModule& out) const;
  void set_gate(const LinearSpec& q, const LinearSpec& k, int layer, MegatronModule& out) const;

  const ModelSpec& spec_;
  GateRows gate_;
  std::map<Key, const LinearSpec*> linears_;  // by layer, role and leaf
  std::map<std::string, MegatronModule, std::less<>> known_;
};

// The path of a module in a name: "decoder.layers.0.mlp.linear_fc1" of
// "base_model.model.language_model.decoder.layers.0.mlp.linear_fc1" and
// "output_layer" of "output_layer"; "" where there is none.
std::string_view megatron_path(std::string_view module);

// Takes "local_experts.7." out of "decoder.layers.0.mlp.experts.local_experts.7.linear_fc1";
// nullopt where there is no such number, and the path stays as it is.
std::optional<int64_t> take_local_expert(std::string& path);

// Puts what factor `tensor` of `module` is in PEFT's names. `tensor` is 2-D, or 3-D with all routed
// experts first; `expert`: which one a 2-D factor of theirs is of. `ranks`: so many tensor-parallel
// ranks are joined in it. Throws Error where its shape is not that of the base model.
void put_megatron(Translation& out, const std::string& name, const MegatronModule& module,
                  std::optional<int64_t> expert, Side side, const Tensor& tensor,
                  int64_t ranks = 1);

// Which experts the modules of routed experts have factors of.
class MegatronExperts {
 public:
  // Throws Error at tensor `name` for an expert that the base model does not have.
  void add(const MegatronModule& module, const std::string& name, int64_t expert);

  // Throws Error for a module that has not all: Megatron adapts all experts or none, and a part of
  // them is what one rank held.
  void check() const;

 private:
  struct Seen {
    int64_t of = 0;  // how many the base model has
    std::set<int64_t> experts;
  };
  std::map<std::string, Seen> seen_;  // by path, so that the first that is named does not vary
};

// Whether a name is of a module of Megatron-Core, whatever its last words.
bool names_megatron(std::string_view name);

// What tells how to have a trainer do it: "Export it to Hugging Face names ...".
extern const std::string_view kMegatronExport;

}  // namespace moelora
