#include "lib/engine/vllm/load/untaken.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "lib/adapter/tensor_name.h"
#include "lib/base/dotted_path.h"
#include "lib/base/nearest.h"
#include "lib/engine/vllm/causes.h"

namespace moelora::vllm {
namespace {

// "model.layers." and 3 of "model.layers.3.mlp"; -1 where there is no layer.
struct Place {
  std::string_view root;
  int64_t layer = -1;
};
Place place_of(std::string_view module) {
  const auto found = find_layer(std::string(module) + ".");
  if (!found) return {module, -1};
  return {module.substr(0, found->begin), found->layer};
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
  if (!server.settings.has("0.11.1") && server.spec.is_moe(static_cast<int>(layer)))
    return Unused::no_experts;
  const Module* experts = experts_of(server, layer);
  if (experts == nullptr) return Unused::dense;
  if (path_of_experts(module) != experts->name) return Unused::moe_path;
  return leaf_of(module) == "base_layer" ? Unused::base_layer : Unused::form;
}

bool is_unwrapped_router(const Server& server, const std::string& module) {
  const std::vector<std::string>& unwrapped = server.model.unwrapped;
  const std::string_view name = leaf_of(module);
  return (name == "gate" || name == "router") &&
         std::find(unwrapped.begin(), unwrapped.end(), name) != unwrapped.end();
}

// Another module for the message: of the same name in the layer, else the nearest.
std::string like_it(const Server& server, const std::string& module, int64_t layer) {
  std::vector<std::string_view> all;
  for (const Module& wrapped : server.modules)
    for (const Child& child : wrapped.children) {
      if (wrapped.layer == layer && leaf_of(child.name) == leaf_of(module))
        return fmt::format("; {} is one", child.name);
      all.push_back(child.name);
    }
  const auto near = nearest(module, all);
  return near ? fmt::format("; {} is one", *near) : "";
}

bool is_packed_name(const Server& server, std::string_view name) {
  return std::any_of(server.modules.begin(), server.modules.end(), [&](const Module& module) {
    return module.packed && !module.is_experts() && leaf_of(module.name) == name;
  });
}

bool is_router(const Server& server, std::string_view name) {
  return name == "gate" || name == "router" || name == "wg" ||
         std::any_of(server.spec.linears.begin(), server.spec.linears.end(),
                     [&](const LinearSpec& linear) {
                       return linear.role == Role::router &&
                              (leaf_of(linear.hub) == name || leaf_of(linear.memory) == name);
                     });
}

// Of a name that passed the parser and not the gate. `tail` begins with "experts".
const Cause* cause_of_expert_name(const Server& server, std::string_view tail) {
  const std::string_view rest = tail.substr(tail.find('.') + 1);
  const size_t dot = rest.find('.');
  const auto index = parse_index(rest.substr(0, dot));
  if (!index || dot == std::string_view::npos)
    return (rest == "w1" || rest == "w2" || rest == "w3") && !server.settings.shared_outer
               ? &cause::shared_outer_flag
               : &cause::layout_class_mismatch;
  if (server.settings.shared_outer || server.stacked()) return &cause::layout_class_mismatch;
  return leaf_of(rest) == "gate_up_proj" ? &cause::fused_names : &cause::unsupported_name;
}

}  // namespace

const Cause* cause_of_unparsable(std::string_view name) {
  switch (parse_tensor_name(name).part) {
    case TensorPart::lora_bias:
      return &cause::bias;
    case TensorPart::magnitude:
      return &cause::dora;
    case TensorPart::lora_a:
    case TensorPart::lora_b:
    case TensorPart::embedding_a:
    case TensorPart::embedding_b:
      return &cause::unsupported_name;
    default:
      return name.find("lora_") == std::string_view::npos ? &cause::modules_to_save
                                                          : &cause::unsupported_name;
  }
}

const Cause* cause_of_module(const Server& server, std::string_view module) {
  const size_t experts = module.find(".experts");
  if (experts != std::string_view::npos && !server.settings.has("0.11.1"))
    return &cause::no_expert_lora;
  if (experts != std::string_view::npos)
    return cause_of_expert_name(server, module.substr(experts + 1));
  const std::string_view name = leaf_of(module);
  if (is_packed_name(server, name)) return &cause::fused_names;
  if (name == "embed_tokens" || name == "lm_head") return &cause::embedding_target;
  return is_router(server, name) ? &cause::router_target : &cause::unsupported_name;
}

std::string what_is_accepted(const Server& server) {
  std::set<std::string> names;
  for (const std::string& name : server.accepted)
    if (!name.starts_with("experts")) names.insert(name);
  std::string out = fmt::format("{} takes LoRA on {}", server.model.name, fmt::join(names, " "));
  if (!server.settings.has("0.11.1"))
    out += ", and on no experts in this version";
  else if (server.settings.shared_outer)
    out += ", experts as experts.w1/w2/w3";
  else if (!server.expert_names.empty())
    out += server.model.expert_prefix.empty()
               ? fmt::format(", experts as experts.N.{}",
                             fmt::join(server.model.expert_names.all(), "/"))
               : ", and on no numbered experts: it names them with their path";
  else if (server.spec.experts > 0)
    out += ", experts stacked as experts.base_layer (gate_up) and experts (down)";
  return out;
}

Unused why_unused(const Server& server, const std::string& module) {
  if (is_unwrapped_router(server, module)) return Unused::router;
  const Place place = place_of(module);
  if (place.layer < 0 || place.root != root_of(server)) return Unused::root;
  if (place.layer >= server.spec.layers) return Unused::layer;
  return module.find(kExperts) == std::string::npos ? Unused::module
                                                    : expert_tensor(server, module, place.layer);
}

const Cause* cause_of(Unused why) {
  if (why == Unused::router) return &cause::router_target;
  if (why == Unused::no_experts) return &cause::no_expert_lora;
  if (why == Unused::base_layer) return &cause::base_layer_alone;
  return why == Unused::moe_path ? &cause::wrong_moe_path : &cause::silent_no_op;
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
    case Unused::no_experts:
      return fmt::format("{} is not wrapped: this version has no LoRA on experts",
                         path_of_experts(module));
    case Unused::module:
      return fmt::format("{} has no such module{}", server.model.name,
                         like_it(server, module, place.layer));
  }
  return "";
}

}  // namespace moelora::vllm
