#include "lib/engine/vllm/load/adapter.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <unordered_map>

#include "lib/adapter/tensor_name.h"
#include "lib/base/dotted_path.h"
#include "lib/engine/python_text.h"
#include "lib/engine/vllm/causes.h"
#include "lib/engine/vllm/load/untaken.h"

namespace moelora::vllm {
namespace {

// 0.31 alone parses it, as a lora_B that the real one then replaces.
constexpr std::string_view kBias = "lora_B.bias";

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

bool passes(const Server& server, const std::string& module) {
  const size_t experts =
      server.settings.has("0.11.1") ? module.find(".experts") : std::string::npos;
  return server.accepted.contains(experts != std::string::npos ? module.substr(experts + 1)
                                                               : std::string(leaf_of(module)));
}

std::string gate_text(const Server& server, const ServedAdapter& adapter,
                      const std::vector<std::string>& received) {
  constexpr size_t kListed = 8;  // a model with 128 experts has a set of 400 names
  const NameSet accepted(server.accepted.begin(), server.accepted.end());
  return fmt::format(
      "While loading {}, expected target modules in {} but received {}. Please verify that the "
      "loaded LoRA module is correct",
      adapter.folder, py_set(accepted, kListed), py_list(received, kListed));
}

ParsedName parse_name(const Server& server, const std::string& name) {
  if (is_base_embedding(name) || is_skipped(server.model, name))
    return {ParsedName::Is::skipped, name, false};
  std::string mapped = vllm_name(server, name);
  const bool takes_bias = server.settings.has("0.31") && !server.settings.has("0.32");
  for (std::string_view ending : std::initializer_list<std::string_view>{
           "lora_A.weight", "lora_B.weight", "lora_embedding_A", "lora_embedding_B", kBias}) {
    if (ending == kBias && !takes_bias) continue;
    if (!mapped.ends_with(ending)) continue;
    const size_t rest = mapped.size() - ending.size();
    if (rest > 0 && mapped[rest - 1] != '.') continue;
    mapped.resize(rest == 0 ? 0 : rest - 1);
    return {ParsedName::Is::factor, std::move(mapped), ending.find("_A") != std::string_view::npos};
  }
  if (name.starts_with(kPeftPrefix)) mapped.insert(0, kPeftPrefix);
  return {ParsedName::Is::unsupported, std::move(mapped), false};
}

// The file vLLM reads; null when there is none.
const WeightFile* chosen_file(const ServedAdapter& adapter) {
  for (std::string_view name :
       {"adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt"})
    for (const WeightFile& file : adapter.files)
      if (file.name == name) return &file;
  return nullptr;
}

// The name gate (check_unexpected_modules): every name must parse, and its last component (or its
// tail from "experts") must be one that the model has. Names with "base_layer" are not looked at.
// The first event is what the server raises; one event a cause.
void check_names(const Server& server, const ServedAdapter& served, Adapter& out) {
  std::vector<std::string> received;
  std::vector<uint32_t> outside;
  for (uint32_t i = 0; i < out.names.size(); ++i) {
    const std::string& spelled = out.file->tensors[i].name;
    const ParsedName& name = out.names[i];
    if (name.is == ParsedName::Is::skipped || spelled.find("base_layer") != std::string::npos)
      continue;
    if (name.is == ParsedName::Is::unsupported) {
      join(out.events, refused(cause_of_unparsable(spelled), "names", unsupported(name),
                               "vLLM takes names that end in lora_A.weight, lora_B.weight, "
                               "lora_embedding_A or lora_embedding_B",
                               {i}));
    } else if (!passes(server, name.module)) {
      outside.push_back(i);
      received.push_back(name.module);
    }
  }
  if (outside.empty()) return;
  const Raised raised("ValueError", gate_text(server, served, received));
  const std::string detail = what_is_accepted(server);
  for (uint32_t i : outside)
    join(out.events,
         refused(cause_of_module(server, out.names[i].module), "names", raised, detail, {i}));
}

std::string files_of(const ServedAdapter& adapter) {
  std::vector<std::string_view> names;
  for (const WeightFile& file : adapter.files) names.push_back(file.name);
  return names.empty() ? "no weights file" : fmt::format("{}", fmt::join(names, ", "));
}

// Adapter::modules, module_of and wanted.
void number_modules(const Server& server, Adapter& out) {
  std::unordered_map<std::string, uint32_t> numbers;
  const auto number = [&](const std::string& name) {
    const auto [at, fresh] = numbers.try_emplace(name, static_cast<uint32_t>(numbers.size()));
    if (fresh) out.modules.push_back(name);
    return at->second;
  };
  const auto find = [&](const std::string& name) {
    const auto at = numbers.find(name);
    return at == numbers.end() ? kNoModule : at->second;
  };
  // Its own name, or since 0.33 the one it has in the text model alone.
  const std::string& text = server.model.text_prefix;
  const auto spelled = [&](const std::string& name) {
    if (text.empty() || !name.starts_with(text) || numbers.contains(name)) return name;
    const std::string bare = name.substr(text.size());
    return numbers.contains(bare) ? bare : name;
  };
  for (const ParsedName& name : out.names)
    out.module_of.push_back(name.is == ParsedName::Is::factor ? number(name.module) : kNoModule);
  for (const Module& module : server.modules) {
    Wanted& wanted = out.wanted.emplace_back();
    wanted.own = number(spelled(module.name));
    for (const Child& child : module.children) wanted.children.push_back(find(spelled(child.name)));
    if (!module.is_experts()) continue;
    wanted.inner = find(spelled(module.name + ".base_layer"));
    for (const std::string& child : server.expert_names)
      wanted.children.push_back(find(spelled(sibling(module.name, child))));
  }
}

}  // namespace

Adapter open_adapter(const Server& server, const ServedAdapter& served) {
  Adapter out{served, read_config(served, server.settings), chosen_file(served), {}, {}, {}, {},
              {}};
  out.events = out.config.events;
  if (out.file == nullptr) {
    out.events.push_back(
        refused(&cause::tensor_loader, "file",
                Raised("ValueError", fmt::format("{} doesn't contain tensors", served.folder)),
                fmt::format("vLLM reads adapter_model.safetensors, .bin or .pt in one piece; the "
                            "folder has {}",
                            files_of(served))));
    return out;
  }
  out.names.reserve(out.file->tensors.size());
  for (const TensorHeader& header : out.file->tensors)
    out.names.push_back(parse_name(server, header.name));
  check_names(server, served, out);
  number_modules(server, out);
  return out;
}

}  // namespace moelora::vllm
