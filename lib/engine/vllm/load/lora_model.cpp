#include "lib/engine/vllm/load/lora_model.h"

#include <fmt/format.h>

#include "lib/adapter/tensor_name.h"
#include "lib/base/dotted_path.h"
#include "lib/engine/vllm/causes.h"

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

bool refuse(Loading& load, uint32_t tensor, const Cause* cause, const Raised& raised,
            std::string detail) {
  load.states[tensor].use = Use::refused;
  load.events.push_back(refused(cause, "tensors", raised, std::move(detail), {tensor}));
  return false;
}

bool accept(Loading& load, uint32_t tensor) {
  const ParsedName& name = load.adapter.names[tensor];
  if (name.is == ParsedName::Is::unsupported)
    return refuse(load, tensor, &cause::unsupported_name, unsupported(name),
                  "a name with base_layer passes the gate and cannot be parsed");
  if (!name.a) return true;
  const TensorHeader& header = load.adapter.file->tensors[tensor];
  const auto raised = raised_by([&] { check_vocabulary(load.server, header.name, header.shape); });
  return !raised || refuse(load, tensor, &cause::shape_refused, *raised,
                           fmt::format("is {}, the base's vocabulary has {} entries",
                                       to_string(header.shape), load.server.spec.vocab));
}

void set_scales(Loading& load, uint32_t tensor, Lora& lora) {
  const LoraConfig& config = load.adapter.config;
  lora.scale = config.scaling;
  lora.expert_scale = config.expert_scaling;
  if (!config.has_patterns()) return;
  const std::string path = parse_tensor_name(load.adapter.file->tensors[tensor].name).module;
  if (const auto raised = raised_by([&] { lora.scale = config.scale_of(path); }))
    refuse(load, tensor, &cause::config_refused, *raised, "rank_pattern or alpha_pattern");
  lora.expert_scale = lora.scale;
}

void put(Loading& load, uint32_t tensor) {
  const uint32_t module = load.adapter.module_of[tensor];
  Lora* lora = load.model.find(module);
  if (lora == nullptr) {
    lora = &load.model.add(module);
    set_scales(load, tensor, *lora);
  }
  uint32_t& factor = load.adapter.names[tensor].a ? lora->a : lora->b;
  if (factor != Lora::kNoTensor) load.states[factor].use = Use::overwritten;
  factor = tensor;
  load.states[tensor].use = Use::loaded;
}

}  // namespace

void add_sources(const Lora& lora, std::vector<uint32_t>& out) {
  if (lora.has_a()) out.push_back(lora.a);
  if (lora.has_b()) out.push_back(lora.b);
  for (const auto* views : {&lora.as, &lora.bs})
    for (const std::optional<View>& view : *views)
      if (view) out.insert(out.end(), view->sources.begin(), view->sources.end());
}

Lora& LoraModel::add(uint32_t module) {
  if (Lora* old = find(module)) old->dropped = true;
  Lora& lora = loras_.emplace_back();
  lora.module = module;
  by_module_[module] = &lora;
  return lora;
}

void LoraModel::drop(Lora& lora) {
  lora.dropped = true;
  if (by_module_[lora.module] == &lora) by_module_[lora.module] = nullptr;
}

View LoraModel::b(const Lora& lora) const {
  View out = View::of(lora.b, file_.tensors[lora.b].shape);
  out.scale = lora.b_scale;
  return out;
}

void load_tensors(Loading& load) {
  const bool filters = load.server.settings.expert_parallel && !load.server.stacked();
  for (uint32_t i = 0; i < load.states.size(); ++i) {
    if (filters && is_remote(load.server, load.rank, load.adapter.file->tensors[i].name))
      load.states[i].use = Use::remote;
    else if (load.adapter.names[i].is == ParsedName::Is::skipped)
      load.states[i].use = Use::skipped;
    else if (accept(load, i))
      put(load, i);
  }
}

}  // namespace moelora::vllm
