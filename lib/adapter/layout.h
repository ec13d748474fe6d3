#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/adapter/adapter.h"
#include "lib/adapter/tensor_name.h"
#include "lib/model/model_spec.h"

namespace moelora {

// One routed-expert tensor of an adapter file, its name taken apart.
struct ExpertTensor {
  std::string name;  // as in the file
  ExpertPath path;
  Side side;
  Tensor tensor;
};

// Whether a tensor can belong to a layout: no; possible, as in others too (a numbered down_proj is
// the same in peft-linear and linear-fused); sure, it decides.
enum class Claim : uint8_t { no, possible, sure };

struct ReadContext {
  const ModelSpec* spec;  // null without a base model
  const AdapterConfig& config;
  ReadOptions options;
  std::vector<std::string>& notes;  // what was assumed, for people
  // Gains the tensors left out because another spelling has the same bytes; null: none may be.
  std::vector<std::string>* twins = nullptr;
};

// How the routed experts are to be written.
struct LayoutWriteOptions {
  BOrder b_order = BOrder::rank_major;
  Roles roles = Roles::natural;
  bool canonical_names = false;  // gate/up/down where the family says w1/w3/w2
  bool short_names = false;      // w1/w3/w2 where the hub numbers no experts (vLLM on gpt-oss)
  bool shared_outer = false;     // stacked-fused: outer factors once, with a leading 1
  bool up_as_gate = false;       // without a gate, up is called gate_proj (w1), as SGLang reads it

  // The projection under whose name `projection` is written.
  Projection named(Projection projection, const ModelSpec* spec) const {
    const bool rename = up_as_gate && spec != nullptr && !spec->gated;
    return rename && projection == Projection::up ? Projection::gate : projection;
  }
};

struct WriteContext {
  const Adapter& adapter;
  const ModelSpec* spec;
  LayoutWriteOptions options;
};

// Something PEFT must target for the written tensors to have a place.
struct ExpertTarget {
  std::string path;  // module or parameter path: what PEFT's patterns are matched with
  bool parameter;    // target_parameters, else target_modules
  Scaling scaling;
};

struct WrittenExperts {
  TensorMap tensors;  // full names
  std::vector<ExpertTarget> targets;
};

// An on-disk form of routed-expert factors. Every layout is one file in layouts/ that defines one
// `const Layout layouts::NAME`; the folder is the registry.
struct Layout {
  std::string_view id;       // what --to says: peft-linear
  std::string_view summary;  // one line for the table of REFERENCE.md
  std::string_view names;    // names below "...experts", for the table
  std::string_view shapes;   // for the table
  std::string_view sources;  // upstream code these names and shapes were read from
  // Traits: what code that meets any layout asks. Nobody compares ids.
  bool fused = false;          // gate and up are one matrix
  bool numbered = false;       // a pair per expert, its number in the name; else all in one tensor
  bool one_parameter = false;  // all experts are one PEFT parameter: B has an order, A and B roles
  bool shared_outer = false;   // gate/up A and down B are always one matrix for all experts
  Form form;                   // whose module names dense tensors take
  // Row order of fused factors; nullopt: the family's own, as its base parameter has it.
  std::optional<GateUpOrder> gate_up_order;

  Claim (*claim)(const ExpertTensor& tensor);
  void (*read)(std::span<const ExpertTensor> tensors, const ReadContext& context, Adapter& adapter);
  WrittenExperts (*write)(const WriteContext& context);
};

// Every file of layouts/ as a symbol: layouts::peft_linear, ...
namespace layouts {
#define MOELORA_ENTRY(name) extern const Layout name;
#include "layouts.inc"
#undef MOELORA_ENTRY
}  // namespace layouts

std::span<const Layout* const> all_layouts();
// Error at the option that says it, which lists the ids and the nearest.
const Layout& layout_by_id(std::string_view id, Option said_by = Option::to);

// The layout all of these tensors belong to; null when there are none. Throws Error that names
// tensors of both sides when a file mixes layouts, or the names that belong to none.
const Layout* detect_layout(std::span<const ExpertTensor> tensors);

// A routed-expert factor; nullopt for anything else.
std::optional<ExpertTensor> expert_tensor(const std::string& name, const TensorName& parsed,
                                          const Tensor& tensor);
std::vector<ExpertTensor> expert_tensors(const TensorMap& tensors);

// Whether files of this form name modules as the hub does, not as they are called in memory.
bool in_hub_names(const ModelSpec& spec, Form form);

// Whether a layout has the experts of this base as rows of one matrix (DBRX): gate and up apart,
// one factor of PEFT's for all experts of each. Whether it has gate and up as one matrix.
bool has_rows(const Layout& layout, const ModelSpec* spec);
bool joins_gate_up(const Layout& layout, const ModelSpec* spec);

// The stem of the written tensors: the base's spelling in the layout's form, or as found.
std::string written_stem(const WriteContext& context, Form form, int layer);

}  // namespace moelora
