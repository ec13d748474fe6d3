#include "lib/engine/vllm/load/adapter.h"

#include <fmt/format.h>

#include <unordered_map>

#include "lib/engine/vllm/causes.h"

namespace moelora::vllm {
namespace {

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
  out.faults = out.config.faults;
  if (out.file == nullptr) {
    out.faults.push_back(
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
  for (Fault& fault : check_names(server, served, *out.file, out.names))
    out.faults.push_back(std::move(fault));
  Numbering(server, out).run();
  return out;
}

}  // namespace moelora::vllm
