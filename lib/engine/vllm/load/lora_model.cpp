#include "lib/engine/vllm/load/lora_model.h"

#include <fmt/format.h>

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

class TensorStep {
 public:
  explicit TensorStep(Loading& load)
      : load_(load), server_(load.server), adapter_(load.adapter), states_(load.states) {}

  void run() {
    const bool filters = server_.settings.expert_parallel && !server_.stacked();
    for (uint32_t i = 0; i < adapter_.names.size(); ++i) {
      if (filters && is_remote(server_, load_.rank, header(i).name))
        states_[i].use = Use::remote;
      else if (adapter_.names[i].is == ParsedName::Is::skipped)
        states_[i].use = Use::skipped;
      else if (accept(i))
        put(i);
    }
  }

 private:
  const TensorHeader& header(uint32_t i) const { return adapter_.file->tensors[i]; }

  bool accept(uint32_t i) {
    const ParsedName& name = adapter_.names[i];
    if (name.is == ParsedName::Is::unsupported)
      return refuse(i, &cause::unsupported_name,
                    Raised("ValueError", name.module + " is unsupported LoRA weight"),
                    "a name with base_layer passes the gate and cannot be parsed");
    if (!name.a) return true;
    const auto raised =
        raised_by([&] { check_vocabulary(server_, header(i).name, header(i).shape); });
    return !raised || refuse(i, &cause::shape_refused, *raised,
                             fmt::format("is {}, the base's vocabulary has {} entries",
                                         to_string(header(i).shape), server_.spec.vocab));
  }

  bool refuse(uint32_t i, const Cause* cause, const Raised& raised, std::string detail) {
    states_[i].use = Use::refused;
    load_.events.push_back(refused(cause, "tensors", raised, std::move(detail), {i}));
    return false;
  }

  void put(uint32_t i) {
    Lora* lora = load_.model.find(adapter_.module_of[i]);
    if (lora == nullptr) {
      lora = &load_.model.add(adapter_.module_of[i]);
      lora->scale = adapter_.config.scaling;
    }
    uint32_t& factor = adapter_.names[i].a ? lora->a : lora->b;
    if (factor != Lora::kNoTensor) states_[factor].use = Use::overwritten;
    factor = i;
    states_[i].use = Use::loaded;
  }

  Loading& load_;
  const Server& server_;
  const Adapter& adapter_;
  std::vector<TensorState>& states_;
};

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

void load_tensors(Loading& load) { TensorStep(load).run(); }

}  // namespace moelora::vllm
