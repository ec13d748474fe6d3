#pragma once

#include <string>
#include <vector>

#include "lib/adapter/convert.h"

namespace moelora {

struct InitOptions {
  std::string base;
  std::vector<std::string> model_specs;
  Links links = Links::within;  // of the base's files
  int64_t rank = 0;
  double alpha = 0;                  // 0: as the rank, scale 1
  std::vector<std::string> targets;  // attention, mixer, mlp, shared, experts, lm_head
  std::string to;                    // layout id
  uint64_t seed = 0;
  bool shared_outer = false;  // one outer factor for all experts of a layer
  bool random_b = false;      // else B is zero, as PEFT starts: the adapter changes nothing yet
  DType dtype = DType::F32;
};

// The config of an adapter of this model that was never in a file: what PEFT writes by default.
// `base` is the model's name.
AdapterConfig new_config(const std::string& base, const ModelSpec& spec, int64_t r,
                         double lora_alpha, bool use_rslora = false);

// A new adapter as PEFT would start it: A uniform in ±1/sqrt(in) (Kaiming with a = sqrt(5)), B
// zero. gate and up share their A where the layout holds them as one matrix. Never on the router:
// SGLang and vLLM refuse it. Same options, same bytes. What comes back has no input, and a note of
// a base that was compared with no model (BaseModel::derived).
Conversion make_adapter(const InitOptions& options);

// The same for a base model that is at hand; options.base is only its name.
Conversion make_adapter(const InitOptions& options, const ModelSpec& spec);

}  // namespace moelora
