#pragma once

#include <span>
#include <string_view>

#include "lib/io/json.h"

namespace moelora {

// What a LoraConfig of PEFT can switch on beside plain LoRA and DoRA, and no server computes:
// SGLang and vLLM ignore the key without a word (vLLM refuses two of them).
struct Variant {
  std::string_view key, title;
  std::string_view since;    // release of PEFT that has it; "" before any that is known here
  std::string_view effect;   // what a server computes without it
  std::string_view tensors;  // a part of the names of its own tensors; "" for none
  bool training_only;        // nothing is lost when serving, but for those tensors

  bool is_on(const Json& config) const;
};

std::span<const Variant> all_variants();

}  // namespace moelora
