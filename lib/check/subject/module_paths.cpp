#include "lib/check/subject/module_paths.h"

#include <algorithm>

#include "lib/adapter/stacked_pairs.h"
#include "lib/base/dotted_path.h"

namespace moelora {
namespace {

void add_once(std::vector<std::string>& paths, std::string path) {
  if (std::find(paths.begin(), paths.end(), path) == paths.end()) paths.push_back(std::move(path));
}

void add_dense(const Subject& subject, const NamedTensor& tensor, std::vector<std::string>& out) {
  add_once(out, tensor.module);
  if (const LinearSpec* linear = subject.linear_of(tensor)) {
    add_once(out, linear->memory);
    add_once(out, linear->hub);
  }
  const bool is_z = leaf_of(tensor.module) == "in_proj_z";
  if (is_z ||
      (subject.spec() != nullptr && joint_module(*subject.spec(), tensor.module) != nullptr))
    add_once(out, sibling(tensor.module, "in_proj_qkvz"));
  for (size_t i = 0, n = out.size(); i < n; ++i)
    if (is_parameter(subject, out[i] + ".weight")) add_once(out, out[i] + ".weight");
}

// A pair of target_parameters may be either parameter: the names of all are given.
void add_parameters(const Subject& subject, const std::string& stem,
                    std::vector<std::string>& out) {
  const ModelSpec* spec = subject.spec();
  std::vector<Projection> parameters = {
      spec == nullptr || spec->gated ? Projection::gate_up : Projection::up, Projection::down};
  if (spec != nullptr && spec->memory.axes == ExpertAxes::rows)
    parameters = {Projection::gate, Projection::up, Projection::down};
  for (const Projection p : parameters) add_once(out, parameter_path(spec, stem, p));
}

}  // namespace

bool is_parameter(const Subject& subject, const std::string& path) {
  return ends_in_any(path, subject.target_parameters);
}

const LinearSpec* joint_module(const ModelSpec& spec, const std::string& module) {
  const std::string_view leaf = leaf_of(module);
  if (leaf != "in_proj_q" && leaf != "in_proj_k" && leaf != "in_proj_v") return nullptr;
  return spec.find_linear(sibling(module, "in_proj_qkv"));
}

std::vector<std::string> paths_of(const Subject& subject, const FactorPair& pair) {
  const NamedTensor& tensor = subject.parts.any(pair);
  std::vector<std::string> out;
  if (!tensor.expert) {
    add_dense(subject, tensor, out);
    return out;
  }
  const std::string stem = tensor.experts_path();
  if (tensor.expert->form == ExpertPath::Form::parameters) {
    add_parameters(subject, stem, out);
    return out;
  }
  out.push_back(tensor.module);
  if (tensor.is_named_experts())
    add_once(out, stem + "." + std::string(projection_name(*tensor.expert->projection)));
  return out;
}

}  // namespace moelora
