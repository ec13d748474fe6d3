#include "lib/engine/sglang/model/wrapped.h"

namespace moelora::sglang {
namespace {

// "gate_up_proj", or "indexer.wq_b" of a target that names the parent too.
bool is_target(const ClassModule& module, const NameSet& targets) {
  if (targets.count(module.leaf()) != 0) return true;
  const std::string_view name = module.name;
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos || dot == 0) return false;
  return targets.count(name.substr(name.rfind('.', dot - 1) + 1)) != 0;
}

bool is_supported(const ClassModule& module, const Features& features) {
  if (module.kind == LayerKind::replicated) return features.replicated_layers;
  return module.kind != LayerKind::foreign;
}

}  // namespace

Wrapping wrap_modules(const ModelClass& model, const Features& features, const NameSet& targets) {
  Wrapping out;
  out.layers.resize(static_cast<size_t>(model.layers()));
  const TargetMatcher matcher(targets);
  const bool both = targets.count("gate_up_proj") != 0 && targets.count("down_proj") != 0;
  for (const ClassModule& module : model.modules) {
    if (module.kind == LayerKind::embedding) out.embed_tokens = targets.count("embed_tokens") != 0;
    if (module.layer < 0) continue;
    auto& layer = out.layers[static_cast<size_t>(module.layer)];
    if (module.kind == LayerKind::fused_moe) {
      if (!both) continue;
      for (const char* buffer : {"gate_up_proj_moe", "down_proj_moe"})
        layer.push_back({&module, buffer});
    } else if (is_target(module, targets)) {
      if (!is_supported(module, features)) out.unsupported.push_back(&module);
      layer.push_back({&module, matcher.targets()[static_cast<size_t>(matcher.find(module.name))]});
    }
  }
  out.lm_head = targets.count("lm_head") != 0;
  return out;
}

}  // namespace moelora::sglang
