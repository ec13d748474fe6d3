#pragma once

#include <string>
#include <string_view>

#include "lib/check/run_rules.h"

namespace moelora {

// What a rule says of itself. The example is not written down anywhere: it is its `breaks`, applied
// to its specimen and judged now.

// --explain ID: what, why, source, example, fix; prose wrapped at `width` columns (0: never).
std::string explain(const Rule& rule, size_t width = 0);

// The same without the example, for a scanner's help page.
std::string rule_page(const Rule& rule);
std::string rule_page_markdown(const Rule& rule);

// The first https:// address in Rule::source; "" when there is none.
std::string source_url(const Rule& rule);

// "sglang from 0.5.10 before 0.5.13", "any": for whom a rule is.
std::string rule_scope(const Rule& rule);

// --list-rules in "text", "markdown" (the table of REFERENCE.md) or "json" (moelora.rules/1).
std::string list_rules(std::string_view format);

}  // namespace moelora
