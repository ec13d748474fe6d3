// ModelSpec::tensors: the names and shapes of a checkpoint or a state dict.
#include <fmt/format.h>

#include "lib/model/expert_storage.h"
#include "lib/model/model_spec.h"

namespace moelora {
namespace {

using Tensors = std::vector<std::pair<std::string, Shape>>;

void add_numbered(const ModelSpec& spec, const ExpertStorage& storage, const std::string& stem,
                  Tensors& out) {
  for (int64_t e = 0; e < spec.experts; ++e) {
    for (const auto& [projection, name] : stored_projections(storage)) {
      const std::string module = fmt::format("{}.{}.{}", stem, e, name);
      const int64_t rows = spec.out_dim(projection);
      out.emplace_back(module + ".weight", Shape{rows, spec.in_dim(projection)});
      if (spec.expert_bias) out.emplace_back(module + ".bias", Shape{rows});
    }
  }
}

void add_batched(const ModelSpec& spec, const ExpertStorage& storage, const std::string& stem,
                 Tensors& out) {
  for (const auto& [projection, name] : stored_projections(storage)) {
    const std::string parameter = fmt::format("{}.{}", stem, name);
    const int64_t rows = spec.out_dim(projection), columns = spec.in_dim(projection);
    const bool in_out = storage.axes == ExpertAxes::in_out;
    out.emplace_back(parameter, in_out ? Shape{spec.experts, columns, rows}
                                       : Shape{spec.experts, rows, columns});
    if (spec.expert_bias) out.emplace_back(parameter + "_bias", Shape{spec.experts, rows});
  }
}

void add_linear(const LinearSpec& linear, Form form, Tensors& out) {
  const std::string& module = form == Form::hub ? linear.hub : linear.memory;
  const bool stored_in_out = linear.role == Role::embedding;
  out.emplace_back(module + ".weight",
                   stored_in_out ? Shape{linear.in, linear.out} : Shape{linear.out, linear.in});
  if (linear.bias) out.emplace_back(module + ".bias", Shape{linear.out});
}

}  // namespace

std::vector<std::pair<std::string, Shape>> ModelSpec::tensors(Form form) const {
  Tensors out;
  for (const LinearSpec& linear : linears) {
    const bool left_out = linear.role == Role::lm_head && tied_embeddings && form == Form::hub;
    if (!left_out) add_linear(linear, form, out);
  }
  for (int layer = 0; layer < layers; ++layer) {
    if (!is_moe(layer)) continue;
    const std::string stem = expert_stem(form, layer);
    storage(form).numbered ? add_numbered(*this, storage(form), stem, out)
                           : add_batched(*this, storage(form), stem, out);
  }
  return out;
}

}  // namespace moelora
