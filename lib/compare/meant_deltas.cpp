#include "lib/compare/meant_deltas.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "lib/base/dotted_path.h"

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

struct Fused {
  std::string_view name;
  std::array<std::string_view, 3> parts;  // "" for none
};
constexpr Fused kFused[] = {{"qkv_proj", {"q_proj", "k_proj", "v_proj"}},
                            {"gate_up_proj", {"gate_proj", "up_proj", ""}}};

// The base's modules that `module` stands for, with their rows in order; none where it is one
// itself or they do not add up to `rows`.
std::vector<const LinearSpec*> parts_of(const std::string& module, int64_t rows,
                                        const ModelSpec& spec) {
  std::vector<const LinearSpec*> out;
  if (spec.find_linear(module) != nullptr) return out;
  for (const Fused& fused : kFused) {
    if (leaf_of(module) != fused.name) continue;
    for (std::string_view part : fused.parts) {
      if (part.empty()) continue;
      const LinearSpec* linear = spec.find_linear(sibling(module, part));
      if (linear == nullptr) return {};
      out.push_back(linear);
      rows -= linear->out;
    }
  }
  return rows == 0 ? out : std::vector<const LinearSpec*>{};
}

void add_dense(const std::string& module, const Delta& delta, const ModelSpec& spec, Deltas& out) {
  const bool matrix = delta.b.rank() == 2;
  const auto parts = parts_of(module, matrix ? delta.b.dim(0) : 0, spec);
  if (!matrix || parts.empty()) {
    out.emplace(DeltaKey{module, -1, -1}, delta);
    return;
  }
  int64_t first = 0;
  for (const LinearSpec* part : parts) {
    out.emplace(DeltaKey{part->memory, -1, -1},
                Delta{delta.a, delta.b.slice(0, first, part->out), delta.scale});
    first += part->out;
  }
}

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
      add_dense(names.of(key.module), delta, spec, out);
  add_embeddings(adapter, names, out);
  return out;
}

}  // namespace moelora
