#pragma once

#include <map>
#include <string>
#include <vector>

#include "lib/check/subject/adapter_parts.h"
#include "lib/check/subject/base_headers.h"
#include "lib/model/base_model.h"

namespace moelora {

// Where the module of a tensor lies, held against the base model.
enum class ModuleFit : uint8_t {
  sound,          // a module of the text model
  unknown,        // no such module
  out_of_range,   // its layer is none of the model's
  foreign_tower,  // of a vision or audio tower, or of the prediction layers, in "layers.N."
  outside_text,   // of such a part, outside any "layers.N.": nothing here knows its modules
  no_layout,      // a routed-expert factor of no known form: FMT010 says so
};

// The modules of one base model, for tens of thousands of names.
class BaseModules {
 public:
  // `headers` may be null.
  BaseModules(const BaseModel& base, const BaseHeaders* headers);

  ModuleFit fit(const NamedTensor& tensor) const;

  // The module that an unknown one is most likely meant to be: "" for none, or after some dozen
  // questions.
  std::string nearest_to(const std::string& module);

 private:
  ModuleFit fit_dense(const NamedTensor& tensor) const;
  ModuleFit fit_expert(const ExpertPath& place) const;
  bool is_expert_stem(const std::string& stem) const;

  const ModelSpec& spec_;
  const BaseHeaders* headers_;
  std::vector<std::string> known_;              // paths without their numbers, each once
  std::map<std::string, std::string> nearest_;  // by path without numbers
};

}  // namespace moelora
