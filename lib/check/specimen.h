#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/check/deployment.h"
#include "lib/check/rule.h"

namespace moelora {

// A small sound adapter in memory with its base and deployment, for the examples of rules: each is
// accepted without a finding above information by every engine in `engines`, and a rule's example
// is one change of it. Values are random (seeded), lora_B is not zero.
struct Specimen {
  std::string id;                    // "qwen3_moe_per_expert"
  std::vector<Subject> adapters;     // one, more for rules of a deployment
  Json base_config;                  // of the tiny base model; a change may edit it
  std::vector<std::string> engines;  // that accept it: as --engine takes them
  ServerOptions options;
  bool without_base = false;      // check it without a base model
  std::optional<Subject> source;  // with it the rules that compute are run too
  bool numeric = false;           // so are they with this

  Subject& adapter() { return adapters.front(); }
  Json& config() { return adapters.front().config; }
  // The tensors of the adapter's weights file.
  TensorMap& tensors() { return adapters.front().files.front().tensors; }

  void set(const std::string& name, Tensor tensor) { tensors()[name] = std::move(tensor); }
  Tensor zeros(const Shape& shape, DType dtype = DType::F32) const;
  Tensor random(const Shape& shape, uint64_t seed = 1) const;  // F32, uniform in +-0.1
};

std::span<const std::string_view> specimen_ids();
Specimen make_specimen(std::string_view id);  // REQUIRES a known id

// The specimen as read from disk would be, interpreted and planned for `engine` ("sglang@0.5.10";
// "" for none): what rules see.
Deployment deployment_of(Specimen specimen, std::string_view engine);
Deployment example_of(const Rule& rule);  // the specimen that the rule breaks, broken

}  // namespace moelora
