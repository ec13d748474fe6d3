#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "lib/check/report.h"

namespace moelora {

// What the report formats have in common.

struct Counts {
  int64_t errors = 0, warnings = 0, information = 0;
  int64_t all() const { return errors + warnings + information; }
};
Counts count_findings(std::span<const Finding> findings);
Counts count_findings(std::span<const Finding* const> findings);
std::string counts_text(const Counts& counts);  // "2 errors, 1 warning"; "no findings"

// What is printed is one line, without anything that could steer a terminal.
std::string one_line(std::string_view text);  // "" stays ""
// The text as it is where it is UTF-8, else escaped: what JSON and XML may hold.
std::string as_utf8(std::string_view text);

std::string rule_title(const Finding& finding);  // "SGL002 lone-q-proj"

// "q_proj and 47 more": at most `most` names; "" for the adapter as a whole.
std::string where_text(const Finding& finding, size_t most = 1);
// "WHERE: MESSAGE", the message alone without a place.
std::string finding_line(const Finding& finding, size_t most = 1);

// "adapters/a", "the deployment".
std::string adapter_title(const Deployment& deployment, std::optional<size_t> adapter);

// Findings of one adapter (nullopt: the deployment), in the results's order.
std::vector<const Finding*> findings_of(const RuleResults& results, std::optional<size_t> adapter);
// The adapters in order, and the deployment last when something was found in it.
std::vector<std::optional<size_t>> places(const Report& report);

// All that one rule says of one adapter for one engine: what a code scanner takes as one result.
struct FindingGroup {
  std::vector<const Finding*> findings;  // not empty; the first gives rule, engine and adapter
  std::vector<std::string> names;        // of all of them, sorted, each once
  Severity severity;                     // the gravest
  const Finding& first() const { return *findings.front(); }
};
std::vector<FindingGroup> grouped(std::span<const Finding> findings);
// The first finding told, and how many more there are.
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
std::vector<Remark> remarks(const RuleResults& results);

// The engine runs whose memory is known.
std::vector<const EngineRun*> with_memory(const Deployment& deployment);

std::string engines_text(const Deployment& deployment);  // "sglang@0.5.18, vllm@0.27"; "" for none
// "2 errors, 1 warning in 3 adapters; 118 rules for sglang@0.5.18".
std::string summary_line(const Report& report);

// Words of `text` in lines of at most `width` columns (0: one line), lines after the first
// indented by `indent` spaces.
std::string wrapped(std::string_view text, size_t width, size_t indent);

// Text of unknown origin inside a cell of a Markdown table (GitHub's): nothing in it formats,
// links, mentions or ends the cell.
std::string md_text(std::string_view text);
// The same as code; an empty text is empty.
std::string md_code(std::string_view text);

}  // namespace moelora
