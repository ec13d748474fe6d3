#include "lib/diff/reports/worst_table.h"

#include <cmath>

#include "lib/base/page/markup.h"

namespace moelora {
namespace {

// The text of a token, where a side has it.
std::string token_text(const Comparison& c, const ScorePair& p) {
  for (const Scores* side : {&c.a, &c.b}) {
    const auto& texts = side->sequences[p.sequence].texts;
    if (p.position < texts.size()) return page::code(texts[p.position]);
  }
  return "";
}

}  // namespace

std::string worst_table(const Comparison& c, std::string_view a, std::string_view b) {
  page::Table table({"|d|", "sequence", "position", "token", a, b, "text"}, 6);
  for (const ScorePair& p : c.worst)
    table.row({page::number(std::fabs(p.d())), std::to_string(p.sequence),
               std::to_string(p.position), p.token < 0 ? "?" : std::to_string(p.token),
               page::number(p.a), page::number(p.b), token_text(c, p)});
  return page::heading("Worst tokens") + table.finish();
}

}  // namespace moelora
