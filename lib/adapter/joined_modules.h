#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/adapter/adapter.h"
#include "lib/model/model_spec.h"

namespace moelora {

// Dense modules that are one in a place and several in another: q, k and v, or gate and up. The
// lora_A of the whole is that of each part, and the rows of its lora_B are theirs, so that parting
// is exact and moves data only. Parts with a lora_A of their own each are joined with these below
// one another and a block-diagonal lora_B, as gate and up of experts are.
struct JoinedModule {
  struct Part {
    std::string module;  // as the base has it in memory; of a base that has the whole alone its
                         // sibling: "model.layers.0.mlp.gate_proj"
    int64_t rows;
  };
  std::string module, hub;  // the whole in memory and in the hub's files; one where it is in one
  int64_t in = 0, out = 0;  // of the whole
  bool in_hub = false, in_memory = false;  // neither: a name that trainers and servers have for it
  std::vector<Part> parts;                 // in the order of their rows
  bool in_turn = false;                    // rows g0,u0,g1,u1: two parts of one size

  bool is_in(Form form) const { return form == Form::hub ? in_hub : in_memory; }
};

// Those of the base whose rows can be told, in its order: a module of one form that the other has
// in parts (query_key_value of Sarvam, gate_up_proj of MiniMax-M3), one that both have whole (GLM-4
// and Phi-3), and what both have in parts and an adapter may name qkv_proj or gate_up_proj. Not
// there: modules of families whose order of rows was not read, though they have such a name (those
// of --model-spec, MiniMax's qkv_proj, which lies by heads), and what nothing is known to be a part
// of (Lara's in_proj).
std::vector<JoinedModule> joined_modules(const ModelSpec& spec);

// lora_B [rows of all parts, r] as that of each part, and back.
std::vector<Tensor> parted_rows(const JoinedModule& module, const Tensor& b);

// lora_A and lora_B of the whole from those of its parts; those without are empty (rank() == 0).
// Where all parts that are there have the same lora_A (`same_a`) it is kept. REQUIRES: one dtype
// for each side, and at least one part.
std::pair<Tensor, Tensor> joined_pair(const JoinedModule& module,
                                      std::span<const std::pair<Tensor, Tensor>> parts,
                                      bool same_a);

// Puts the pair of such a module into its parts. False where the adapter has none. Throws Error for
// another shape, and where it holds more of it than factors (a bias, DoRA's magnitude).
bool part_module(const JoinedModule& module, Adapter& adapter);

// Puts the pairs of such a module's parts into it, alpha (and, where no alpha does, a rank with
// some zeros more) chosen so that the scale is the same double. False where the adapter has none of
// them. `threads` (0: all) compare bytes. Throws Error as above, and where parts differ in scale or
// dtype.
bool join_module(const JoinedModule& module, const ModelSpec& spec, Adapter& adapter, int threads);

// How a place has such a module.
enum class Joining : uint8_t { whole, parted, either };

// Every such module as `wanted` says. Returns what was done, for people.
std::vector<std::string> join_or_part(const ModelSpec& spec, Adapter& adapter, int threads,
                                      const std::function<Joining(const JoinedModule&)>& wanted);

// As this form of the base has it.
inline Joining joining_of(const JoinedModule& module, Form form) {
  return module.is_in(form) ? Joining::whole : Joining::parted;
}

}  // namespace moelora
