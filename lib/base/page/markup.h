#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace moelora::page {

// What HTML pages are made of. Text is data, wherever it comes from: a parameter called `text`,
// `label` or `title` is made printable and escaped here, for an element or an attribute in double
// quotes. A parameter called `markup` is markup already and stands as it is.

std::string text(std::string_view text);   // on one line; "" stays ""
std::string lines(std::string_view text);  // with its line breaks, for <pre>
std::string number(double value);          // "0.001234", "inf", "nan"

std::string element(std::string_view tag, std::string_view css_class, std::string_view markup);
std::string heading(std::string_view title);  // of a part of the page
std::string paragraph(std::string_view text, std::string_view css_class = "");
std::string code(std::string_view text);
std::string item(std::string_view text, std::string_view css_class = "");  // of a list

// A heading and a list of at most `most` texts, and how many more there are; "" without any.
std::string listed(std::string_view title, const std::vector<std::string>& texts, size_t most);
// "and 4 more" of `all` where `shown` are shown, as a paragraph; "" where all are.
std::string and_more(size_t all, size_t shown, std::string_view what = "");

// A table that scrolls by itself where the page is narrow. Cells are markup; `wide` columns hold
// prose and are left-aligned, as the first one is.
class Table {
 public:
  explicit Table(std::initializer_list<std::string_view> headings, size_t prose_from = 1000);
  void row(const std::vector<std::string>& markup);
  std::string finish() const;

 private:
  std::string line(const std::vector<std::string>& markup, std::string_view tag) const;
  size_t prose_from_;
  std::string markup_;
};

// What a metric means, or how something is measured: a list of terms at the end of a page.
struct Term {
  std::string_view name, meaning;
};
std::string terms(std::initializer_list<Term> terms);

}  // namespace moelora::page
