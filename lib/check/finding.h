#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/check/repair.h"
#include "lib/check/rule.h"

namespace moelora {

// One thing that a rule found. Collected, never thrown.
struct Finding {
  const Rule* rule = nullptr;
  Severity severity = Severity::error;
  std::string engine;             // "sglang@0.5.18"; "" for a rule of no engine
  size_t deployment = 0;          // whose: index in the report
  std::optional<size_t> adapter;  // index in the deployment; nullopt: the deployment as a whole
  // What the user can point at: a file of the adapter's folder, and in it a config key or a tensor.
  std::string file;          // "adapter_config.json", "adapter_model.safetensors", "" unknown
  int line = 0, column = 0;  // in `file`; 0 unknown
  std::string where;         // "rank_pattern", a tensor's or module's name; "" the whole adapter
  std::vector<std::string> names;  // every tensor or module concerned, sorted; `where` is the first
  std::string message;             // found and expected, one line, without `where`
  std::string fix;                 // one command or instruction; "" where nothing is known
  std::optional<Repair> repair;    // the command that `fix` begins with, where there is one
  Remedy remedy = Remedy::by_hand;  // the rule's; a check() that writes `fix` itself says by_hand
  std::string_view remedy_to = {};  // instead of Rule::remedy_to
  std::string server_text;          // what the server says, quoted; "" when it says nothing
  bool unchecked = false;           // the rule could not be run: `message` says why
  // What was asked for could not be judged at all: fails whatever is to fail, but the exit status
  // is 2, not 1.
  bool unjudged = false;
};

}  // namespace moelora
