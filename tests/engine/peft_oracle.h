#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/engine/plan.h"
#include "lib/engine/served_adapter.h"
#include "lib/io/json.h"
#include "lib/model/model_spec.h"

namespace moelora::test {

// PEFT's oracle (tests/data/pack_peft.py): one base, adapters of it, and what real PEFT did.

// What a part of an adapter came to: "whole", "lost", "partly", or "scaled 1.4142".
using PeftParts = std::map<std::string, std::string>;

struct PeftRecord {
  std::string form, release;      // "0.18.1+t5" is PEFT 0.18.1 beside transformers 5.5
  std::optional<Refusal> raised;  // the stage is the file and the function
  PeftParts parts;                // without `raised`

  bool is_whole() const;
};

struct PeftFamily {
  std::string name;
  ModelSpec spec;
  Json table;

  const Json& config() const { return *table.find("config"); }
  const Json& form(const std::string& id) const { return *table.find("forms")->find(id); }
  ServedAdapter adapter(const std::string& id) const;  // F32; "attn"
  std::vector<PeftRecord> records() const;
};

// One at a time: a table is up to 3 MB of JSON. Families that no file in schemas/models describes
// are left out.
void each_peft_family(const std::function<void(const PeftFamily&)>& use);

}  // namespace moelora::test
