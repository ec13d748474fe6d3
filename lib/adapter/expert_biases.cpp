#include "lib/adapter/expert_biases.h"

#include <fmt/core.h>

#include "lib/adapter/tensor_name.h"
#include "lib/base/dotted_path.h"
#include "lib/base/error.h"

namespace moelora {
namespace {

constexpr std::string_view kBias = "_bias";

struct Parameter {
  Projection projection;
  bool bias;
  std::string path;
};

// Of one module, in the class's order, those that the config targets.
std::vector<Parameter> targeted(const std::string& stem, const ReadContext& context) {
  std::vector<Parameter> out;
  for (const StoredProjection& stored : stored_projections(context.spec->memory))
    for (const bool bias : {false, true}) {
      const std::string path = stem + "." + stored.name + (bias ? std::string(kBias) : "");
      if (ends_in_any(path, context.config.target_parameters))
        out.push_back({stored.projection, bias, path});
    }
  return out;
}

void check_sizes(const StackedPair& pair, const Parameter& parameter, const ModelSpec& spec) {
  const int64_t out = spec.out_dim(parameter.projection);
  if (pair.a_dim() == out && pair.b_dim() == spec.experts) return;
  throw Error(pair.a->name,
              fmt::format("and its lora_B adapt {} x {}, but {} of this base model is {} x {}",
                          pair.b_dim(), pair.a_dim(), parameter.path, spec.experts, out),
              {"check ", Option::base});
}

}  // namespace

std::map<std::string, const ExpertTensor*> take_expert_biases(std::vector<StackedPair>& pairs,
                                                              const ReadContext& context) {
  std::map<std::string, const ExpertTensor*> out;
  if (context.spec == nullptr || !context.spec->expert_bias) return out;
  std::vector<StackedPair> kept;
  for (size_t begin = 0; begin < pairs.size();) {
    size_t end = begin;
    while (end < pairs.size() && pairs[end].layer == pairs[begin].layer) ++end;
    const std::string stem = with_layer(pairs[begin].a->path.stem, pairs[begin].layer);
    const std::vector<Parameter> parameters = targeted(stem, context);
    for (size_t i = begin; i < end; ++i) {
      const bool known = parameters.size() == end - begin;
      if (!known || !parameters[i - begin].bias) {
        kept.push_back(pairs[i]);
        continue;
      }
      const Parameter& parameter = parameters[i - begin];
      check_sizes(pairs[i], parameter, *context.spec);
      out[parameter.path + ".lora_A.weight"] = pairs[i].a;
      out[parameter.path + ".lora_B.weight"] = pairs[i].b;
    }
    begin = end;
  }
  pairs = std::move(kept);
  return out;
}

bool is_expert_bias(std::string_view extra) {
  const std::string module = parse_tensor_name(extra).module;
  return module.ends_with(kBias) && parse_expert_path(module).has_value();
}

std::map<ExpertKey, ExpertBias> expert_biases(const Adapter& adapter, const ModelSpec* spec) {
  constexpr std::string_view kA = ".lora_A.weight";
  std::map<ExpertKey, ExpertBias> out;
  for (const auto& [name, extra] : adapter.extras) {
    if (!name.ends_with(kA) || !is_expert_bias(name)) continue;
    const std::string path = name.substr(0, name.size() - kA.size());
    const int layer = parse_expert_path(path)->layer;
    for (const Projection p : {Projection::gate_up, Projection::up, Projection::down})
      if (leaf_of(path) == std::string(parameter_name(spec, p)) + std::string(kBias))
        out[{layer, p}] = {name, path + ".lora_B.weight", path};
  }
  return out;
}

}  // namespace moelora
