#include "lib/base/page/markup.h"

#include <fmt/core.h>

#include <algorithm>

#include "lib/base/utf8.h"

namespace moelora::page {

namespace {
constexpr size_t kLongestText = 4096;
}

std::string text(std::string_view text) {
  return text.empty() ? std::string() : xml_escaped(printable(text, kLongestText));
}

std::string lines(std::string_view text) {
  std::string out(text.substr(0, kLongestLine));
  std::erase(out, '\t');
  return xml_escaped(out);
}

std::string number(double value) { return fmt::format("{:.4g}", value == 0 ? 0.0 : value); }

std::string element(std::string_view tag, std::string_view css_class, std::string_view markup) {
  if (css_class.empty()) return fmt::format("<{0}>{1}</{0}>", tag, markup);
  return fmt::format("<{0} class=\"{1}\">{2}</{0}>", tag, css_class, markup);
}

std::string heading(std::string_view title) { return element("h2", "", text(title)) + "\n"; }

std::string paragraph(std::string_view text, std::string_view css_class) {
  return element("p", css_class, page::text(text)) + "\n";
}

std::string code(std::string_view text) { return element("code", "", page::text(text)); }

std::string item(std::string_view text, std::string_view css_class) {
  return element("li", css_class, page::text(text)) + "\n";
}

std::string listed(std::string_view title, const std::vector<std::string>& texts, size_t most) {
  if (texts.empty()) return "";
  std::string items = "\n";
  for (size_t i = 0; i < std::min(texts.size(), most); ++i) items += item(texts[i]);
  return heading(title) + element("ul", "", items) + "\n" + and_more(texts.size(), most);
}

std::string and_more(size_t all, size_t shown, std::string_view what) {
  return all <= shown
             ? ""
             : paragraph(fmt::format("and {} more{}{}", all - shown, what.empty() ? "" : " ", what),
                         "soft");
}

Table::Table(std::initializer_list<std::string_view> headings, size_t prose_from)
    : prose_from_(prose_from) {
  std::vector<std::string> cells;
  for (const std::string_view heading : headings) cells.push_back(text(heading));
  markup_ = line(cells, "th");
}

void Table::row(const std::vector<std::string>& markup) { markup_ += line(markup, "td"); }

std::string Table::finish() const {
  return fmt::format("<div class=\"scroll\"><table>\n{}</table></div>\n", markup_);
}

std::string Table::line(const std::vector<std::string>& markup, std::string_view tag) const {
  std::string out = "<tr>";
  for (size_t i = 0; i < markup.size(); ++i)
    out += element(tag, i >= prose_from_ ? "prose" : "", markup[i]);
  return out + "</tr>\n";
}

std::string terms(std::initializer_list<Term> terms) {
  std::string out;
  for (const Term& term : terms)
    out += fmt::format("<dt>{}</dt><dd>{}</dd>\n", text(term.name), text(term.meaning));
  return heading("What the numbers mean") + element("dl", "", "\n" + out) + "\n";
}

}  // namespace moelora::page
