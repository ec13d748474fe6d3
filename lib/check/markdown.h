#pragma once

#include <string>
#include <string_view>

namespace moelora {

// Text of unknown origin inside a cell of a Markdown table (GitHub's): nothing in it formats,
// links, mentions or ends the cell.
std::string md_text(std::string_view text);
// The same as code; an empty text is empty.
std::string md_code(std::string_view text);

}  // namespace moelora
