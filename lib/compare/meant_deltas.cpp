#include "lib/compare/meant_deltas.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "lib/adapter/joined_modules.h"

namespace moelora {
namespace {

constexpr std::string_view kLayers = "layers.";
constexpr std::string_view kRoots[] = {"model", "language_model", "base_model", "backbone"};

// "layers.3.self_attn.q_proj" of a text model's module; "" for anything else, vision towers too.
std::string_view tail_of(std::string_view module) {
  const size_t at = module.starts_with(kLayers) ? 0 : module.find(".layers.") + 1;
  if (at == 0 && !module.starts_with(kLayers)) return "";
  std::string_view root = module.substr(0, at);
  while (!root.empty()) {
    const size_t dot = root.find('.');
    if (std::find(std::begin(kRoots), std::end(kRoots), root.substr(0, dot)) == std::end(kRoots))
      return "";
    root.remove_prefix(dot + 1);
  }
  return module.substr(at);
}

// "model.embed_tokens.lora_embedding_A" and B as a pair.
void add_embeddings(const Adapter& adapter, const ModuleNames& names, Deltas& out) {
  constexpr std::string_view kA = ".lora_embedding_A";
  for (const auto& [name, extra] : adapter.extras) {
    if (extra.kind != ExtraKind::embedding_factor || !name.ends_with(kA)) continue;
    const std::string module = name.substr(0, name.size() - kA.size());
    const auto b = adapter.extras.find(module + ".lora_embedding_B");
    if (b == adapter.extras.end()) continue;
    out[{names.of(module), -1, -1}] = {extra.tensor, b->second.tensor,
                                       adapter.config.scaling(module).value()};
  }
}

// A module that one form of the base has whole and the other in parts, or that is trained in parts
// though the base has it whole, as the hub's form has it: what servers hold is named so.
class HubForm {
 public:
  HubForm(Deltas& deltas, int threads) : deltas_(deltas), threads_(threads) {}

  void apply(const JoinedModule& module) {
    if (module.in_hub)
      join(module);
    else
      part(module);
  }

 private:
  static DeltaKey key_of(const std::string& module) { return {module, -1, -1}; }

  void part(const JoinedModule& module) {
    auto at = deltas_.find(key_of(module.module));
    if (at == deltas_.end()) at = deltas_.find(key_of(module.hub));
    if (at == deltas_.end() || at->second.b.dim(0) != module.out) return;
    const Delta whole = at->second;
    deltas_.erase(at);
    const std::vector<Tensor> rows = parted_rows(module, whole.b);
    for (size_t i = 0; i < rows.size(); ++i)
      deltas_.emplace(key_of(module.parts[i].module), Delta{whole.a, rows[i], whole.scale});
  }

  // Of parts that differ in scale or type nothing is made: no server holds such.
  void join(const JoinedModule& module) {
    std::vector<std::pair<Tensor, Tensor>> pairs, both;
    const Delta* first = nullptr;
    for (const JoinedModule::Part& part : module.parts) {
      const auto at = deltas_.find(key_of(part.module));
      if (at == deltas_.end()) {
        pairs.emplace_back();
        continue;
      }
      const Delta& own = at->second;
      if (first == nullptr) first = &own;
      if (own.b.dim(0) != part.rows || own.a.dim(1) != module.in || own.scale != first->scale ||
          own.a.dtype() != first->a.dtype() || own.b.dtype() != first->b.dtype())
        return;
      pairs.emplace_back(own.a, own.b);
      both.emplace_back(first->a, own.a);
    }
    if (first == nullptr || deltas_.count(key_of(module.module)) != 0) return;
    auto [a, b] = joined_pair(module, pairs, all_identical(both, threads_));
    const double scale = first->scale;
    for (const JoinedModule::Part& part : module.parts) deltas_.erase(key_of(part.module));
    deltas_.emplace(key_of(module.module), Delta{std::move(a), std::move(b), scale});
  }

  Deltas& deltas_;
  int threads_;
};

}  // namespace

ModuleNames::ModuleNames(const ModelSpec& spec) : spec_(spec) {
  for (const LinearSpec& linear : spec.linears)
    for (const std::string& name : {linear.memory, linear.hub})
      if (const std::string_view tail = tail_of(name); !tail.empty())
        by_tail_.emplace(tail, linear.memory);
}

std::string ModuleNames::of(const std::string& module) const {
  for (const std::string& name : {module, spec_.normalised(module)}) {
    if (const LinearSpec* linear = spec_.find_linear(name)) return linear->memory;
    if (const auto at = by_tail_.find(tail_of(name)); at != by_tail_.end()) return at->second;
  }
  return module;
}

Deltas meant_deltas(const Adapter& adapter, const ModelSpec& spec) {
  const ModuleNames names(spec);
  Deltas out;
  for (const auto& [key, delta] : deltas_of(adapter))
    if (key.expert >= 0)
      out.emplace(key, delta);
    else
      out.emplace(DeltaKey{names.of(key.module), -1, -1}, delta);
  HubForm form(out, 0);
  for (const JoinedModule& module : joined_modules(spec)) form.apply(module);
  add_embeddings(adapter, names, out);
  return out;
}

}  // namespace moelora
