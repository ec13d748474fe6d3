#pragma once

#include <string>
#include <vector>

#include "lib/check/subject/subject.h"

namespace moelora {

// Whether target_parameters names this path: "model.layers.0.mlp.router.weight".
bool is_parameter(const Subject& subject, const std::string& path);

// The paths that a key or target of adapter_config.json may call the module of a pair by: as the
// file spells it, as the base model's hub and in-memory names are; for experts in one tensor the
// parameter's ("...experts.gate_up_proj"), which the tensor's own name may not have.
std::vector<std::string> paths_of(const Subject& subject, const FactorPair& pair);

// The module of which this one is rows: SGLang loads the in_proj_qkv of a linear attention as
// in_proj_q, in_proj_k and in_proj_v, and calls these and in_proj_z in_proj_qkvz in target_modules.
// Null for none.
const LinearSpec* joint_module(const ModelSpec& spec, const std::string& module);

}  // namespace moelora
