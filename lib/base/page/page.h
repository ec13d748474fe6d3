#pragma once

#include <string>
#include <string_view>

namespace moelora {

// Where a page comes from, which it says at its top. Empty parts are left out, so that a page of
// the library has the same bytes whenever it is made.
struct PageOrigin {
  std::string command;  // "lora-diff weights a b --format html"
  std::string date;     // "2026-12-01 05:05 UTC"
};

namespace page {

// The one style of all HTML reports: a document that holds everything it needs. No script, nothing
// loaded; light, dark and for paper. `markup` is the body below the title and the origin.
std::string whole_page(std::string_view title, const PageOrigin& origin, std::string_view markup);

}  // namespace page
}  // namespace moelora
