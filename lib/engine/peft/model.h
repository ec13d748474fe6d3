#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/engine/engine.h"
#include "lib/model/model_spec.h"

namespace moelora::peft {

// PEFT of one release beside one release of transformers, for one base model.
struct Host {
  const ModelSpec& spec;
  EngineVersion peft;
  std::string transformers;  // "5.24"

  bool has(std::string_view release) const;  // of PEFT
  bool has_transformers(std::string_view release) const;
  // How transformers holds the model: as the hub's files (4, or code of the model's own), or as it
  // does today.
  Form form() const;
  bool has_numbered_experts() const;  // a Linear for each
  // PEFT 0.19 and newer beside transformers 5: it rewrites the targets, or the names of tensors.
  bool rewrites_targets() const;
  bool rewrites_names() const;
  // Whether a parameter of three axes counts as [experts, in, out], or as [experts, out, in]. Up to
  // 0.18 all do; 0.19.0 took those for the other whose class is marked as transposed, since 0.19.1
  // all but those.
  bool reads_in_out() const;
};

// transformers=VERSION, or what this PEFT was paired with in the oracle. Throws Error for what is
// not a version.
Host host_of(const ModelSpec& spec, const EngineVersion& peft, const ServerOptions& options);

// Where no transformers was named, and this PEFT does with one of another major version otherwise
// than beside this: what is assumed. "" for nothing.
std::string assumed_transformers(const Host& host, const ServerOptions& options);

// A module as named_modules() has it.
struct Module {
  enum class Kind : uint8_t { linear, embedding, unsupported };
  std::string path;
  Kind kind = Kind::unsupported;
  int64_t in = 0, out = 0;
  // Its own parameters in the class's order: "weight", "bias", "gate_up_proj" ...
  std::vector<std::pair<std::string, Shape>> parameters = {};
};

// The text model of a base in the order of its layers; towers of other modalities are not in it.
struct Modules {
  std::vector<Module> all;
  std::map<std::string, size_t, std::less<>> by_path;
  std::set<std::string, std::less<>> containers;  // paths of what holds modules

  const Module* find(std::string_view path) const;
};
Modules modules_of(const Host& host);

}  // namespace moelora::peft
