#include "lib/model/model_spec.h"

#include "lib/model/model_builder.h"

namespace moelora {

std::string_view role_name(Role role) {
  switch (role) {
    case Role::attention:
      return "attention";
    case Role::mixer:
      return "mixer";
    case Role::dense_mlp:
      return "dense MLP";
    case Role::shared_expert:
      return "shared expert";
    case Role::shared_expert_gate:
      return "shared expert gate";
    case Role::router:
      return "router";
    case Role::lm_head:
      return "lm_head";
    case Role::embedding:
      return "embedding";
  }
  return "";
}

std::string ModelSpec::expert_stem(Form form, int layer) const {
  return with_layer(storage(form).stem, layer);
}

int64_t ModelSpec::out_dim(Projection p) const {
  switch (p) {
    case Projection::gate:
    case Projection::up:
      return intermediate;
    case Projection::gate_up:
      return 2 * intermediate;
    case Projection::down:
      return expert_in;
  }
  return 0;
}

int64_t ModelSpec::in_dim(Projection p) const {
  return p == Projection::down ? intermediate : expert_in;
}

void ModelSpec::index_linears() {
  by_module_.clear();
  for (size_t i = 0; i < linears.size(); ++i) {
    by_module_.emplace(linears[i].memory, i);
    by_module_.emplace(linears[i].hub, i);
  }
}

const LinearSpec* ModelSpec::find_linear(std::string_view module) const {
  const auto found = by_module_.find(module);
  return found == by_module_.end() ? nullptr : &linears[found->second];
}

std::string ModelSpec::normalised(std::string module) const {
  module = renamed(std::move(module), aliases);
  const LinearSpec* linear = find_linear(module);
  return linear == nullptr ? module : linear->memory;
}

ModelSpec make_model_spec(const Json& config, const std::string& where,
                          const std::vector<Json>& families) {
  std::vector<Family> extra;
  for (const Json& json : families) extra.push_back(parse_family(json, "--model-spec"));
  return build_model_spec(config, where, family_of(config, where, extra));
}

std::vector<std::string> family_names() {
  std::vector<std::string> out;
  for (const Family& family : embedded_families()) out.push_back(family.name);
  return out;
}

}  // namespace moelora
