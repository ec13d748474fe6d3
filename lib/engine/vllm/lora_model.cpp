#include "lib/engine/vllm/lora_model.h"

#include <fmt/format.h>

#include "lib/adapter/tensor_name.h"

namespace moelora::vllm {
namespace {

// Under expert parallel numbered experts of other ranks are not even read. Only where the experts'
// wrapper is not the stacked one.
bool is_remote(const Server& server, int64_t rank, const std::string& name) {
  constexpr std::string_view kMark = ".experts.";
  const size_t at = name.find(kMark);
  if (at == std::string::npos) return false;
  const std::string_view rest = std::string_view(name).substr(at + kMark.size());
  const size_t dot = rest.find('.');
  const auto expert = parse_index(rest.substr(0, dot));
  if (!expert || dot == std::string_view::npos) return false;
  const int64_t first = server.first_expert(rank);
  return *expert < first || *expert >= first + server.local_experts();
}

void check_vocabulary(const Server& server, const std::string& name, const Shape& shape) {
  if (name.find("lora_embedding_A") == std::string::npos) return;
  const int64_t found = View::of(0, shape).size(1);
  if (found != server.spec.vocab)
    throw Raised("RuntimeError", fmt::format("The embedding LoRA size({}) must be consistent with "
                                             "the base model's vocabulary size({}).",
                                             found, server.spec.vocab));
}

}  // namespace

void add_sources(const Lora& lora, std::vector<uint32_t>& out) {
  for (const auto* views : {&lora.a, &lora.b})
    for (const std::optional<View>& view : *views)
      if (view) out.insert(out.end(), view->sources.begin(), view->sources.end());
}

Lora* LoraModel::find(const std::string& module) {
  const auto at = by_module_.find(module);
  return at == by_module_.end() ? nullptr : at->second;
}

Lora& LoraModel::add(std::string module) {
  if (Lora* old = find(module)) old->dropped = true;
  Lora& lora = loras_.emplace_back();
  lora.module = std::move(module);
  by_module_[lora.module] = &lora;
  return lora;
}

void LoraModel::drop(Lora& lora) {
  lora.dropped = true;
  if (const auto at = by_module_.find(lora.module); at != by_module_.end() && at->second == &lora)
    by_module_.erase(at);
}

LoraModel TensorStep::run(std::vector<TensorState>& states, std::vector<Fault>& faults) const {
  LoraModel model;
  const bool filters = server.settings.expert_parallel && !server.stacked();
  for (uint32_t i = 0; i < names.size(); ++i) {
    const TensorHeader& header = file.tensors[i];
    const ParsedName& name = names[i];
    if (filters && is_remote(server, rank, header.name)) {
      states[i].use = Use::remote;
    } else if (name.is == ParsedName::Is::skipped) {
      states[i].use = Use::skipped;
    } else if (name.is == ParsedName::Is::unsupported) {
      states[i].use = Use::refused;
      faults.push_back(refused(cause::kUnsupportedName, "tensors",
                               Raised("ValueError", name.module + " is unsupported LoRA weight"),
                               "a name with base_layer passes the gate and cannot be parsed", {i}));
    } else if (const auto raised = raised_by([&] {
                 if (name.a) check_vocabulary(server, header.name, header.shape);
               })) {
      states[i].use = Use::refused;
      faults.push_back(refused(cause::kShape, "tensors", *raised,
                               fmt::format("is {}, the base's vocabulary has {} entries",
                                           to_string(header.shape), server.spec.vocab),
                               {i}));
    } else {
      Lora* lora = model.find(name.module);
      if (lora == nullptr) {
        lora = &model.add(name.module);
        lora->scale = config.scaling;
      }
      std::optional<View>& factor = (name.a ? lora->a : lora->b)[0];
      if (factor) states[factor->sources[0]].use = Use::overwritten;
      factor = View::of(i, header.shape);
      states[i].use = Use::loaded;
    }
  }
  return model;
}

}  // namespace moelora::vllm
