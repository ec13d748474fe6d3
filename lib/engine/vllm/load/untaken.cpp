#include <fmt/format.h>

#include <algorithm>

#include "lib/adapter/tensor_name.h"
#include "lib/base/nearest.h"
#include "lib/engine/vllm/causes.h"
#include "lib/engine/vllm/plan/silent.h"

namespace moelora::vllm {
namespace {

std::string_view leaf(std::string_view name) { return name.substr(name.rfind('.') + 1); }

// "model.layers." and 3 of "model.layers.3.mlp"; -1 where there is no layer.
struct Place {
  std::string_view root;
  int64_t layer = -1;
};
Place place_of(std::string_view module) {
  constexpr std::string_view kMark = "layers.";
  const size_t at = module.find(kMark);
  if (at == std::string_view::npos) return {module, -1};
  const std::string_view rest = module.substr(at + kMark.size());
  const auto layer = parse_index(rest.substr(0, rest.find('.')));
  return {module.substr(0, at + kMark.size()), layer ? *layer : -1};
}

const Module* experts_of(const Server& server, int64_t layer) {
  for (const Module& module : server.modules)
    if (module.is_experts() && module.layer == layer) return &module;
  return nullptr;
}

std::string_view root_of(const Server& server) {
  for (const Module& module : server.modules)
    if (module.layer >= 0) return place_of(module.name).root;
  return {};
}

constexpr std::string_view kExperts = ".experts";

std::string path_of_experts(const std::string& module) {
  return module.substr(0, module.find(kExperts) + kExperts.size());
}

Unused expert_tensor(const Server& server, const std::string& module, int64_t layer) {
  const Module* experts = experts_of(server, layer);
  if (experts == nullptr) return Unused::dense;
  if (path_of_experts(module) != experts->name) return Unused::moe_path;
  return leaf(module) == "base_layer" ? Unused::base_layer : Unused::form;
}

bool is_unwrapped_router(const Server& server, const std::string& module) {
  const std::vector<std::string>& unwrapped = server.model.unwrapped;
  const std::string_view name = leaf(module);
  return (name == "gate" || name == "router") &&
         std::find(unwrapped.begin(), unwrapped.end(), name) != unwrapped.end();
}

std::string like_it(const Server& server, const std::string& module, int64_t layer) {
  std::vector<std::string_view> same_leaf, all;
  for (const Module& wrapped : server.modules)
    for (const Child& child : wrapped.children) {
      if (wrapped.layer == layer && leaf(child.name) == leaf(module))
        same_leaf.push_back(child.name);
      all.push_back(child.name);
    }
  if (!same_leaf.empty()) return fmt::format("; {} is one", same_leaf.front());
  const auto near = nearest(module, all);
  return near ? fmt::format("; {} is one", *near) : "";
}

}  // namespace

Unused why_unused(const Server& server, const std::string& module) {
  if (is_unwrapped_router(server, module)) return Unused::router;
  const Place place = place_of(module);
  if (place.layer < 0 || place.root != root_of(server)) return Unused::root;
  if (place.layer >= server.spec.layers) return Unused::layer;
  return module.find(kExperts) == std::string::npos ? Unused::module
                                                    : expert_tensor(server, module, place.layer);
}

const Cause* cause_of(Unused why) {
  switch (why) {
    case Unused::router:
      return &cause::router_target;
    case Unused::base_layer:
      return &cause::base_layer_alone;
    case Unused::moe_path:
      return &cause::wrong_moe_path;
    default:
      return &cause::silent_no_op;
  }
}

std::string text_of(Unused why, const Server& server, const std::string& module) {
  const Place place = place_of(module);
  switch (why) {
    case Unused::router:
      return fmt::format("{} does not wrap its router", server.model.name);
    case Unused::root:
      return fmt::format("{} has no module of this name; its layers are {}N", server.model.name,
                         root_of(server));
    case Unused::layer:
      return fmt::format("layer {} is not there: the base has {}", place.layer, server.spec.layers);
    case Unused::dense:
      return fmt::format("layer {} of the base has no experts", place.layer);
    case Unused::base_layer:
      return fmt::format("{0}.base_layer has a pair, {0} has none", path_of_experts(module));
    case Unused::form:
      return fmt::format("{} does not take it in this form", path_of_experts(module));
    case Unused::moe_path:
      return fmt::format("{} has its experts at {}, not at {}", server.model.name,
                         experts_of(server, place.layer)->name, path_of_experts(module));
    case Unused::module:
      return fmt::format("it is no module of {}{}", server.model.name,
                         like_it(server, module, place.layer));
  }
  return "";
}

}  // namespace moelora::vllm
