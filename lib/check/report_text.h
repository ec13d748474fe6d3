#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "lib/check/finding.h"

namespace moelora {

// What findings, rules and names from files are printed as.

// What is printed is one line, without anything that could steer a terminal.
std::string one_line(std::string_view text);  // "" stays ""
// The same of a text that may have several, tabs out of it: what a server prints.
std::string printed_lines(std::string_view text);

std::string rule_title(const Finding& finding);  // "SGL002 lone-q-proj"

// "q_proj and 47 more": at most `most` names; "" for the adapter as a whole.
std::string where_text(const Finding& finding, size_t most = 1);
// "WHERE: MESSAGE", the message alone without a place.
std::string finding_line(const Finding& finding, size_t most = 1);

// Words of `text` in lines of at most `width` columns (0: one line), lines after the first
// indented by `indent` spaces.
std::string wrapped(std::string_view text, size_t width, size_t indent);

// Text of unknown origin inside a cell of a Markdown table (GitHub's): nothing in it formats,
// links, mentions or ends the cell.
std::string md_text(std::string_view text);
// The same as code; an empty text is empty.
std::string md_code(std::string_view text);

}  // namespace moelora
