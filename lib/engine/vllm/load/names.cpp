#include "lib/engine/vllm/load/names.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/adapter/tensor_name.h"
#include "lib/engine/vllm/causes.h"

namespace moelora::vllm {
namespace {

constexpr std::string_view kFiles[] = {"adapter_model.safetensors", "adapter_model.bin",
                                       "adapter_model.pt"};

bool is_base_embedding(std::string_view name) {
  return name.ends_with(".embed_tokens.base_layer.weight") ||
         name.ends_with(".lm_head.base_layer.weight");
}

bool is_skipped(const ModelClass& model, std::string_view name) {
  return std::any_of(model.skipped.begin(), model.skipped.end(), [&](const std::string& prefix) {
    return name.starts_with(prefix) || name.find("." + prefix) != std::string_view::npos;
  });
}

// The name inside vLLM without PEFT's prefix, every occurrence of which is removed.
std::string vllm_name(const Server& server, std::string name) {
  if (name.starts_with(kPeftPrefix))
    for (size_t at = 0; (at = name.find(kPeftPrefix, at)) != std::string::npos;)
      name.erase(at, kPeftPrefix.size());
  return server.model.names.map(std::move(name));
}

struct Ending {
  std::string_view text;
  bool a;
};
constexpr Ending kEndings[] = {{"lora_A.weight", true},
                               {"lora_B.weight", false},
                               {"lora_embedding_A", true},
                               {"lora_embedding_B", false}};

// What an unparsable name is, for people.
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

std::string_view leaf(std::string_view module) { return module.substr(module.rfind('.') + 1); }

bool is_packed_name(const Server& server, std::string_view name) {
  return std::any_of(server.modules.begin(), server.modules.end(), [&](const Module& module) {
    return module.packed && !module.is_experts() && leaf(module.name) == name;
  });
}

bool is_router(const Server& server, std::string_view name) {
  return name == "gate" || name == "router" || name == "wg" ||
         std::any_of(server.spec.linears.begin(), server.spec.linears.end(),
                     [&](const LinearSpec& linear) {
                       return linear.role == Role::router &&
                              (leaf(linear.hub) == name || leaf(linear.memory) == name);
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
  return leaf(rest) == "gate_up_proj" ? &cause::fused_names : &cause::unsupported_name;
}

const Cause* cause_of_module(const Server& server, std::string_view module) {
  const size_t experts = module.find(".experts");
  if (experts != std::string_view::npos)
    return cause_of_expert_name(server, module.substr(experts + 1));
  const std::string_view name = leaf(module);
  if (is_packed_name(server, name)) return &cause::fused_names;
  if (name == "embed_tokens" || name == "lm_head") return &cause::embedding_target;
  return is_router(server, name) ? &cause::router_target : &cause::unsupported_name;
}

bool passes(const Server& server, const std::string& module) {
  const size_t experts = module.find(".experts");
  const std::string key = experts != std::string::npos ? module.substr(experts + 1)
                                                       : module.substr(module.rfind('.') + 1);
  return server.accepted.contains(key);
}

std::string gate_text(const Server& server, const ServedAdapter& adapter,
                      const std::vector<std::string>& received) {
  std::vector<std::string> accepted(server.accepted.begin(), server.accepted.end());
  return fmt::format(
      "While loading {}, expected target modules in {} but received {}. Please verify that the "
      "loaded LoRA module is correct",
      adapter.folder, set_text(std::move(accepted)), list_text(received));
}

std::string what_is_accepted(const Server& server) {
  std::vector<std::string> names;
  for (const std::string& name : server.accepted)
    if (!name.starts_with("experts")) names.push_back(name);
  std::sort(names.begin(), names.end());
  std::string out = fmt::format("{} takes LoRA on {}", server.model.name, fmt::join(names, " "));
  if (server.settings.shared_outer)
    out += ", experts as experts.w1/w2/w3";
  else if (!server.expert_names.empty())
    out +=
        fmt::format(", experts as experts.N.{}", fmt::join(server.model.expert_names.all(), "/"));
  else if (server.spec.experts > 0)
    out += ", experts stacked as experts.base_layer (gate_up) and experts (down)";
  return out;
}

// Collects faults, one a cause, in the order in which the causes were met.
class Collector {
 public:
  void add(const Cause* cause, uint32_t tensor, const Raised& raised, std::string detail) {
    auto at = std::find_if(faults_.begin(), faults_.end(),
                           [&](const Fault& fault) { return fault.cause == cause; });
    if (at == faults_.end())
      at = faults_.insert(at, refused(cause, "names", raised, std::move(detail)));
    at->tensors.push_back(tensor);
  }
  std::vector<Fault> take() { return std::move(faults_); }

 private:
  std::vector<Fault> faults_;
};

}  // namespace

ParsedName parse_name(const Server& server, const std::string& name) {
  if (is_base_embedding(name) || is_skipped(server.model, name))
    return {ParsedName::Is::skipped, name, false};
  std::string mapped = vllm_name(server, name);
  for (const Ending& ending : kEndings) {
    if (!mapped.ends_with(ending.text)) continue;
    const size_t rest = mapped.size() - ending.text.size();
    if (rest > 0 && mapped[rest - 1] != '.') continue;
    mapped.resize(rest == 0 ? 0 : rest - 1);
    return {ParsedName::Is::factor, std::move(mapped), ending.a};
  }
  if (name.starts_with(kPeftPrefix)) mapped.insert(0, kPeftPrefix);
  return {ParsedName::Is::unsupported, std::move(mapped), false};
}

const WeightFile* chosen_file(const ServedAdapter& adapter) {
  for (std::string_view name : kFiles)
    for (const WeightFile& file : adapter.files)
      if (file.name == name) return &file;
  return nullptr;
}

std::vector<Fault> check_names(const Server& server, const ServedAdapter& adapter,
                               const WeightFile& file, const std::vector<ParsedName>& names) {
  Collector unparsable, unexpected;
  std::vector<std::string> received;
  std::vector<uint32_t> outside;
  for (uint32_t i = 0; i < names.size(); ++i) {
    const std::string& spelled = file.tensors[i].name;
    if (names[i].is == ParsedName::Is::skipped || spelled.find("base_layer") != std::string::npos)
      continue;
    if (names[i].is == ParsedName::Is::unsupported) {
      unparsable.add(cause_of_unparsable(spelled), i,
                     Raised("ValueError", names[i].module + " is unsupported LoRA weight"),
                     "vLLM takes names that end in lora_A.weight, lora_B.weight, lora_embedding_A "
                     "or lora_embedding_B");
    } else if (!passes(server, names[i].module)) {
      outside.push_back(i);
      received.push_back(names[i].module);
    }
  }
  std::vector<Fault> out = unparsable.take();
  if (outside.empty()) return out;
  const Raised raised("ValueError", gate_text(server, adapter, received));
  const std::string detail = what_is_accepted(server);
  for (uint32_t i : outside)
    unexpected.add(cause_of_module(server, names[i].module), i, raised, detail);
  for (Fault& fault : unexpected.take()) out.push_back(std::move(fault));
  return out;
}

}  // namespace moelora::vllm
