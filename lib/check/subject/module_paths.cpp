#include "lib/check/subject/module_paths.h"

#include <algorithm>

#include "lib/adapter/stacked_pairs.h"

namespace moelora {
namespace {

void add_once(std::vector<std::string>& paths, std::string path) {
  if (std::find(paths.begin(), paths.end(), path) == paths.end()) paths.push_back(std::move(path));
}

bool is_parameter(const Subject& subject, const std::string& path) {
  if (!subject.parsed_config) return false;
  const auto& targets = subject.parsed_config->target_parameters;
  return std::any_of(targets.begin(), targets.end(), [&](const std::string& target) {
    return path == target || path.ends_with("." + target);
  });
}

void add_dense(const Subject& subject, const NamedTensor& tensor, std::vector<std::string>& out) {
  add_once(out, tensor.module);
  if (tensor.linear >= 0) {
    const LinearSpec& linear = subject.spec()->linears[static_cast<size_t>(tensor.linear)];
    add_once(out, linear.memory);
    add_once(out, linear.hub);
  }
  for (size_t i = 0, n = out.size(); i < n; ++i)
    if (is_parameter(subject, out[i] + ".weight")) add_once(out, out[i] + ".weight");
}

// A pair of target_parameters may be either parameter: the names of all are given.
void add_parameters(const Subject& subject, const std::string& stem,
                    std::vector<std::string>& out) {
  const bool gated = subject.spec() == nullptr || subject.spec()->gated;
  for (Projection p : {gated ? Projection::gate_up : Projection::up, Projection::down})
    add_once(out, stem + std::string(parameter_name(subject.spec(), p)));
}

}  // namespace

std::vector<std::string> paths_of(const Subject& subject, const FactorPair& pair) {
  const NamedTensor& tensor = subject.parts.any(pair);
  std::vector<std::string> out;
  if (!tensor.expert) {
    add_dense(subject, tensor, out);
    return out;
  }
  const ExpertPath& path = subject.experts[static_cast<size_t>(tensor.expert_tensor)].path;
  const std::string stem = with_layer(path.stem, path.layer) + ".";
  if (tensor.expert->form == ExpertPath::Form::parameters) {
    add_parameters(subject, stem, out);
    return out;
  }
  out.push_back(tensor.module);
  if (tensor.expert->form == ExpertPath::Form::named)
    add_once(out, stem + std::string(projection_name(*tensor.expert->projection)));
  return out;
}

}  // namespace moelora
