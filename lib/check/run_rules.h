#pragma once

#include <string>
#include <vector>

#include "lib/base/progress.h"
#include "lib/check/deployment.h"
#include "lib/check/finding.h"

namespace moelora {

struct Skipped {
  std::string what;  // rule ids, "SGL, VLM: ..." in groups
  std::string why;
};

// The good case: an adapter that a server takes whole.
struct Served {
  size_t deployment = 0, adapter = 0;
  std::string engine;  // "sglang@0.5.23"
  std::string text;    // "sglang 0.5.23 serves it whole: --enable-lora --max-lora-rank 8"
};

// What is known of an adapter that was judged alone and let go.
struct JudgedAlone {
  int64_t tensors = 0;
  bool unchanged = false;  // as it was when it was found clean, by lib/check/many/clean_cache.h
};

struct RuleResults {
  std::vector<Finding> findings;  // by adapter, then severity (errors first), then rule id
  std::vector<Skipped> skipped;
  std::vector<std::string> notes;  // what was assumed
  std::vector<Served> served;      // by adapter
  int64_t rules_run = 0;
};

// Runs every rule that applies on every adapter. A rule that throws becomes a finding that says
// what could not be checked; nothing escapes but Cancelled.
RuleResults run_rules(const Deployment& deployment, const JobControl& job = {});

}  // namespace moelora
