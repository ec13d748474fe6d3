#pragma once

#include <string>

#include "lib/adapter/adapter_file.h"
#include "lib/adapter/dialect.h"
#include "tests/adapter/made_adapter.h"

namespace moelora::test {

// A made adapter as it is in PEFT's dialect. `family`: as MadeAdapter::read. An empty config: no
// adapter_config.json lies there.
inline AdapterFiles translated(const MadeAdapter& made, const std::string& family = "",
                               const std::string& from = "") {
  AdapterFiles out;
  out.tensors = made.tensors();
  read_config(made.config().empty() ? Json() : parse_json(made.config(), "adapter_config.json"),
              out, from);
  if (family.empty()) {
    translate(out, nullptr);
    return out;
  }
  const BaseModel base = catalogue_base(family);
  translate(out, &base.spec);
  return out;
}

// "q_proj.lora_A.weight [2, 64]; .." of what a translation made, PEFT's prefix left out.
inline std::string listed(const AdapterFiles& files) {
  std::string out;
  for (const auto& [name, tensor] : files.tensors) {
    const std::string_view prefix = "base_model.model.";
    out += out.empty() ? "" : "; ";
    out += name.starts_with(prefix) ? name.substr(prefix.size()) : name;
    out += " " + to_string(tensor.shape());
  }
  return out;
}

}  // namespace moelora::test
