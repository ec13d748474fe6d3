#include "lib/engine/vllm/load/adapter.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <unordered_map>

#include "lib/adapter/tensor_name.h"
#include "lib/engine/python_text.h"
#include "lib/engine/vllm/causes.h"
#include "lib/engine/vllm/load/untaken.h"

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

bool passes(const Server& server, const std::string& module) {
  const size_t experts = module.find(".experts");
  const std::string key = experts != std::string::npos ? module.substr(experts + 1)
                                                       : module.substr(module.rfind('.') + 1);
  return server.accepted.contains(key);
}

// A model with 128 experts has a set of 400 names.
constexpr size_t kListed = 8;

std::string gate_text(const Server& server, const ServedAdapter& adapter,
                      const std::vector<std::string>& received) {
  const NameSet accepted(server.accepted.begin(), server.accepted.end());
  return fmt::format(
      "While loading {}, expected target modules in {} but received {}. Please verify that the "
      "loaded LoRA module is correct",
      adapter.folder, py_set(accepted, kListed), py_list(received, kListed));
}

// Collects events, one a cause, in the order in which the causes were met.
class Collector {
 public:
  void add(const Cause* cause, uint32_t tensor, const Raised& raised, std::string detail) {
    auto at = std::find_if(events_.begin(), events_.end(),
                           [&](const LoadEvent& event) { return event.cause == cause; });
    if (at == events_.end())
      at = events_.insert(at, refused(cause, "names", raised, std::move(detail)));
    at->tensors.push_back(tensor);
  }
  std::vector<LoadEvent> take() { return std::move(events_); }

 private:
  std::vector<LoadEvent> events_;
};

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

// The file vLLM reads: adapter_model.safetensors, .bin or .pt; null when there is none.
const WeightFile* chosen_file(const ServedAdapter& adapter) {
  for (std::string_view name : kFiles)
    for (const WeightFile& file : adapter.files)
      if (file.name == name) return &file;
  return nullptr;
}

// The name gate (check_unexpected_modules): every name must parse, and its last component (or its
// tail from "experts") must be one that the model has. Names with "base_layer" are not looked at.
// The first event is what the server raises; one event a cause.
std::vector<LoadEvent> check_names(const Server& server, const ServedAdapter& adapter,
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
  std::vector<LoadEvent> out = unparsable.take();
  if (outside.empty()) return out;
  const Raised raised("ValueError", gate_text(server, adapter, received));
  const std::string detail = what_is_accepted(server);
  for (uint32_t i : outside)
    unexpected.add(cause_of_module(server, names[i].module), i, raised, detail);
  for (LoadEvent& event : unexpected.take()) out.push_back(std::move(event));
  return out;
}

std::string files_of(const ServedAdapter& adapter) {
  std::vector<std::string_view> names;
  for (const WeightFile& file : adapter.files) names.push_back(file.name);
  return names.empty() ? "no weights file" : fmt::format("{}", fmt::join(names, ", "));
}

class Numbering {
 public:
  Numbering(const Server& server, Adapter& out) : server_(server), out_(out) {}

  void run() {
    for (const ParsedName& name : out_.names)
      out_.module_of.push_back(name.is == ParsedName::Is::factor ? number(name.module) : kNoModule);
    for (const Module& module : server_.modules) out_.wanted.push_back(wanted(module));
  }

 private:
  uint32_t number(const std::string& name) {
    const auto [at, fresh] = numbers_.try_emplace(name, static_cast<uint32_t>(numbers_.size()));
    if (fresh) out_.modules.push_back(name);
    return at->second;
  }

  uint32_t find(const std::string& name) const {
    const auto at = numbers_.find(name);
    return at == numbers_.end() ? kNoModule : at->second;
  }

  Wanted wanted(const Module& module) {
    Wanted out;
    out.own = number(module.name);
    if (!module.is_experts()) {
      for (const Child& child : module.children) out.children.push_back(find(child.name));
      return out;
    }
    out.inner = find(module.name + ".base_layer");
    std::string name = module.name.substr(0, module.name.rfind('.') + 1);
    const size_t stem = name.size();
    for (const std::string& child : server_.expert_names) {
      name.replace(stem, std::string::npos, child);
      out.children.push_back(find(name));
    }
    return out;
  }

  const Server& server_;
  Adapter& out_;
  std::unordered_map<std::string, uint32_t> numbers_;
};

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
  for (LoadEvent& event : check_names(server, served, *out.file, out.names))
    out.events.push_back(std::move(event));
  Numbering(server, out).run();
  return out;
}

}  // namespace moelora::vllm
