#pragma once

#include <string>
#include <unordered_set>
#include <vector>

#include "lib/engine/plan.h"
#include "lib/engine/vllm/server/model_class.h"
#include "lib/engine/vllm/server/module.h"
#include "lib/engine/vllm/server/settings.h"

namespace moelora::vllm {

// vLLM as started on a base model, before any adapter is loaded.
struct Server {
  const ModelSpec& spec;
  ModelClass model;
  Settings settings;
  std::vector<Module> modules;  // in the order in which an adapter is copied
  // Names the gate accepts: last components, and "experts.3.up_proj".
  std::unordered_set<std::string> accepted;
  std::vector<std::string> expert_names;  // children of "experts", w1 w2 w3 of each expert in turn;
                                          // none for stacked experts
  std::vector<PlanEvent> events;          // why it does not start with LoRA on this base

  int64_t local_experts() const { return spec.experts / settings.ep(); }
  int64_t first_expert(int64_t rank) const {
    return settings.expert_parallel ? rank * local_experts() : 0;
  }
  // A rank's part of the intermediate size, and the rows of gate (and of up) in its buffer, which
  // MXFP4 backends round up.
  int64_t partition() const { return spec.intermediate / settings.moe_tp(); }
  int64_t intermediate() const;
  bool stacked() const { return wraps_stacked(model, settings); }
};

// Why nothing is known of what becomes of an adapter of this base; "" where its class is known.
std::string class_not_known(const PlanRequest& request);

// Throws Error for a base whose class is not known. The request's spec must outlive the
// result; its adapters are not looked at.
Server make_server(const PlanRequest& request);

}  // namespace moelora::vllm
