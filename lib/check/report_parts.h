#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "lib/check/report.h"
#include "lib/check/report_text.h"

namespace moelora {

// What the report formats have in common.

struct Counts {
  int64_t errors = 0, warnings = 0, information = 0;
  int64_t all() const { return errors + warnings + information; }
};
Counts count_findings(std::span<const Finding> findings);
Counts count_findings(std::span<const Finding* const> findings);
std::string counts_text(const Counts& counts);  // "2 errors, 1 warning"; "no findings"

// "ignored SGL002 lone-q-proj in adapters/a: REASON (WHO)".
std::string waived_line(const Report& report, const Waived& waived);

// What is reported of: an adapter, or a deployment as a whole (no adapter).
struct Section {
  size_t deployment = 0;
  std::optional<size_t> adapter;
  friend auto operator<=>(const Section&, const Section&) = default;
};
inline Section section_of(const Finding& finding) { return {finding.deployment, finding.adapter}; }

// "adapters/a", "the deployment", "the deployment of BASE" where there are several.
std::string adapter_title(const Report& report, const Section& section);
std::string adapter_title(const Report& report, const Finding& finding);

// The findings of one section. REQUIRES findings in the order of RuleResults, by deployment first.
std::vector<const Finding*> findings_of(const RuleResults& results, const Section& section);
// The adapters in order, and each deployment behind its own when something was found in it.
std::vector<Section> sections(const Report& report);
// Every adapter, in that order.
std::vector<const Subject*> adapters_of(const Report& report);
// "sglang 0.5.23 serves it whole: ..." of an adapter.
std::vector<std::string> served_texts(const Report& report, const Section& section);

// All that one rule says of one adapter for one engine: what a code scanner takes as one result.
struct FindingGroup {
  std::vector<const Finding*> findings;  // not empty; the first gives rule, engine and adapter
  std::vector<std::string> names;        // of all of them, sorted, each once
  Severity severity;                     // the most severe
  const Finding& first() const { return *findings.front(); }
};
std::vector<FindingGroup> grouped(std::span<const Finding> findings);
// The first finding, and how many more there are.
std::string finding_line(const FindingGroup& group);

// Where a reviewer can look: a text file of the adapter. Findings in weights are shown at the
// config beside them.
struct Spot {
  std::string path;  // relative to options.root, "/" between parts; absolute outside it
  int line = 1, column = 1;
};
Spot spot_of(const Report& report, const Finding& finding);
// The path, from options.root, of a file of the finding's adapter.
std::string path_of(const Report& report, const Finding& finding, const std::string& file);

// What was assumed, and what was not checked.
struct Remark {
  const char* label;  // "note", "not checked"
  std::string text;
};
std::vector<Remark> remarks(const Report& report);
// The same, and before it each good case: "served", "adapters/a: sglang 0.5.23 serves it whole".
std::vector<Remark> remarks_and_served(const Report& report);

// The engine runs whose memory is known; of adapters that were judged alone, each memory once.
std::vector<const EngineRun*> with_memory(const Report& report);
std::string slots_text(const MemoryPlan& memory);  // "slot 1.5 kB, 8 slots 12 kB"

// How many tensors an adapter has, let go or not.
int64_t tensors_of(const Report& report, const Section& section);

// "2 errors, 1 warning in 3 adapters; checked for sglang@0.5.18; not checked for vllm@0.27".
std::string summary_line(const Report& report);

}  // namespace moelora
